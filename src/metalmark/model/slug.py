"""The short name of a thing in URLs: lower-case words joined by single hyphens, at most 64 bytes."""

from __future__ import annotations

import re
import secrets
import string

from metalmark.model.errors import InputError, ToolMissing

SLUG_MAX_BYTES = 64
SLUG_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_SLUG = re.compile(SLUG_PATTERN.removeprefix("^").removesuffix("$"))
_OTHER = re.compile(r"[^a-z0-9]+")
_SUFFIX_LENGTH = 8
_STEM_MAX_LENGTH = SLUG_MAX_BYTES - 1 - _SUFFIX_LENGTH
_BASE_36 = string.digits + string.ascii_lowercase


class Slug(str):
    """A well-formed slug. Made by `parse`, `slug_for` or `with_suffix`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, *, field: str = "slug") -> Slug:
        """Take a slug as it is.

        Raises:
            InputError: It is empty, over 64 bytes, or not what slugifying it would give.
        """
        # The length comes first: the value is shown in the error, and a hostile one must not be.
        if not 1 <= len(text) <= SLUG_MAX_BYTES:
            raise InputError(field, text[:SLUG_MAX_BYTES], f"a slug has 1 to {SLUG_MAX_BYTES} characters")
        if not _SLUG.fullmatch(text):
            hint = "use a-z and 0-9, words joined by single hyphens"
            raise InputError(field, text, "this is not a slug", hint=hint)
        return cls(text)


def slugify(text: str) -> str:
    """Return the slug of any text, or an empty string where it has no letter or digit.

    What is not ASCII is transliterated, the rest lower-cased; every run of other characters becomes one hyphen, none at
    the ends. What is longer than 64 characters is cut there, and has no hyphen at its end either.

    Raises:
        ToolMissing: The text is not ASCII and the package that transliterates is not installed.
    """
    plain = text if text.isascii() else _transliterated(text)
    return _OTHER.sub("-", plain.lower()).strip("-")[:SLUG_MAX_BYTES].strip("-")


def _transliterated(text: str) -> str:
    # The tables are large, and only a server makes slugs of names.
    try:
        from anyascii import anyascii  # noqa: PLC0415  loaded where it is needed, see above
    except ImportError as error:
        hint = "pip install 'metalmark[server]'"
        raise ToolMissing("the package anyascii is not installed", why="it transliterates names", hint=hint) from error
    return anyascii(text)


def slug_for(name: str, supplied: Slug | None = None) -> Slug:
    """Return the slug that a new thing asks for first: the one supplied, else its name's, else a random one.

    A slug that reads as a UUID gets a suffix, because an identifier in a path is tried as a UUID first and the thing
    could never be named by its slug.
    """
    slug = supplied if supplied is not None else Slug(slugify(name) or random_slug_part())
    return with_suffix(slug) if _reads_as_uuid(slug) else slug


def with_suffix(slug: Slug) -> Slug:
    """Return the slug with a hyphen and eight random characters, its stem cut so that the whole fits in 64."""
    return Slug(f"{slug[:_STEM_MAX_LENGTH].rstrip('-')}-{random_slug_part()}")


def random_slug_part() -> str:
    """Return eight random characters out of ``0-9a-z``."""
    return "".join(secrets.choice(_BASE_36) for _ in range(_SUFFIX_LENGTH))


def _reads_as_uuid(slug: Slug) -> bool:
    # Also with hyphens: those of a UUID are where a slug may have them.
    return bool(re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", slug))
