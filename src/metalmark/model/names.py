"""Names as people and programs give them, each well formed once it is parsed.

Each is a `str` of its own type, so that it can be stored, compared and sent as it is, and so that a function can say
which kind it takes. ``parse`` is the only way in for text of strangers. None holds a control character: names go to
terminals and logs.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TypeVar
from uuid import UUID

from metalmark.model.errors import InputError
from metalmark.model.slug import Slug

RESOURCE_NAME_MAX_BYTES = 64
BRANCH_NAME_MAX_BYTES = 256
BENCHMARK_NAME_MAX_BYTES = 1024
EMAIL_MAX_BYTES = 254
GIT_HASH_LENGTH = 40

USER_NAME_PATTERN = r"^[0-9A-Za-z ,\.\-']{1,64}$"
GIT_HASH_PATTERN = r"^[0-9A-Fa-f]{40}$"
_USER_NAME = re.compile(USER_NAME_PATTERN.removeprefix("^").removesuffix("$"))
_GIT_HASH = re.compile(GIT_HASH_PATTERN.removeprefix("^").removesuffix("$"))
_UUID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# The definition of HTML's e-mail field, without dots where RFC 5321 has none.
_EMAIL_TEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"{_EMAIL_TEXT}(?:\.{_EMAIL_TEXT})*@{_HOST_LABEL}(?:\.{_HOST_LABEL})*")
_EMAIL_LOCAL_MAX_BYTES = 64
_NOT_IN_BRANCH = frozenset(" ~^:?*[\\")


class ResourceName(str):
    """What people call a project, testbed, runner, spec or key: 1 to 64 bytes, no white space around it."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, *, field: str = "name") -> ResourceName:
        """Take a name as it is.

        Raises:
            InputError: It is empty, too long, not valid Unicode, padded, or holds a control character.
        """
        return cls(_trimmed(text, RESOURCE_NAME_MAX_BYTES, field))


class UserName(ResourceName):
    """A person's name: a resource name of ASCII letters, digits, spaces and ``,.-'``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, *, field: str = "name") -> UserName:
        """Take a name as it is.

        Raises:
            InputError: As for a resource name, or it holds another character.
        """
        name = _trimmed(text, RESOURCE_NAME_MAX_BYTES, field)
        if not _USER_NAME.fullmatch(name):
            raise InputError(field, name, "a user's name has letters A-Z, digits, spaces and , . - ' only")
        return cls(name)


class BranchName(str):
    """A git reference name, full or partial (``main``, ``feature/x``): 1 to 256 bytes, the rules of git."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, *, field: str = "branch") -> BranchName:
        """Take a name as it is. The rules are those of ``git check-ref-format --allow-onelevel``.

        Raises:
            InputError: Git would not take it.
        """
        name = _bounded(text, BRANCH_NAME_MAX_BYTES, field)
        why = _git_would_refuse(name)
        if why:
            raise InputError(field, name, why, hint="see git check-ref-format")
        return cls(name)


def _git_would_refuse(name: str) -> str:
    if any(character in _NOT_IN_BRANCH or ord(character) < 0x20 or ord(character) == 0x7F for character in name):
        return "a branch name has no space, control character or ~ ^ : ? * [ \\"
    if ".." in name or "@{" in name or name == "@" or name.endswith("."):
        return "a branch name has no .. or @{, is not @ and does not end with a dot"
    parts = name.split("/")
    if any(not part or part.startswith(".") or part.endswith(".lock") for part in parts):
        return "no part of a branch name is empty, begins with a dot or ends with .lock"
    return ""


class BenchmarkName(str):
    """What a benchmark calls itself: 1 to 1024 bytes, white space and all."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, *, field: str = "benchmark") -> BenchmarkName:
        """Take a name as it is.

        Raises:
            InputError: It is empty, too long, not valid Unicode, or holds NUL, which no database takes.
        """
        name = _bounded(text, BENCHMARK_NAME_MAX_BYTES, field)
        if "\0" in name:
            raise InputError(field, name, "a name holds no NUL")
        return cls(name)


class Email(str):
    """An e-mail address in lower case: ASCII, 254 bytes at most, of the form that browsers check."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, *, field: str = "email") -> Email:
        """Check an address by its syntax, and lower its case. Hosts without a dot are fine: a network may be private.

        Raises:
            InputError: It is no address.
        """
        address = _trimmed(text, EMAIL_MAX_BYTES, field)
        if not _EMAIL.fullmatch(address) or address.index("@") > _EMAIL_LOCAL_MAX_BYTES:
            raise InputError(field, address, "this is not an e-mail address", hint="like ada@example.com")
        return cls(address.lower())


class GitHash(str):
    """A full git object id: 40 hex digits, in the case they were given."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str, *, field: str = "hash") -> GitHash:
        """Take a hash as it is.

        Raises:
            InputError: It is not 40 hex digits.
        """
        if not _GIT_HASH.fullmatch(text):
            raise InputError(field, text[:GIT_HASH_LENGTH], "a git hash is 40 hex digits")
        return cls(text)


Name = TypeVar("Name", ResourceName, BranchName, BenchmarkName)

ResourceId = UUID | Slug
"""How a path or a field names a thing: by UUID or by slug."""


def parse_uuid(text: str, *, field: str = "uuid") -> UUID:
    """Read a UUID: hyphenated, 32 hex digits, braced, or ``urn:uuid:``; either case.

    Raises:
        InputError: It is none of these.
    """
    uuid = _uuid_of(text)
    if uuid is None:
        raise InputError(field, text[:64], "this is not a UUID")
    return uuid


def parse_resource_id(text: str, *, field: str = "id") -> ResourceId:
    """Read a UUID, else a slug. 32 hex digits are always a UUID.

    Raises:
        InputError: It is neither.
    """
    uuid = _uuid_of(text)
    return uuid if uuid is not None else Slug.parse(text, field=field)


def parse_name_id(text: str, kind: type[Name], *, field: str = "id") -> UUID | Slug | Name:
    """Read a UUID, else a slug, else a name of the kind given.

    Raises:
        InputError: It is none of these.
    """
    try:
        return parse_resource_id(text, field=field)
    except InputError:
        return kind.parse(text, field=field)


def _uuid_of(text: str) -> UUID | None:
    # Not the constructor's own reading, which takes hyphens anywhere and underscores for digits.
    digits = text.lower()
    if digits.startswith("urn:uuid:"):
        digits = digits.removeprefix("urn:uuid:")
    elif digits.startswith("{") and digits.endswith("}"):
        digits = digits[1:-1]
    return UUID(digits) if _UUID.fullmatch(digits) else None


def _bounded(text: str, max_bytes: int, field: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InputError(field, "�", "this is not valid Unicode") from error
    if not 1 <= size <= max_bytes:
        raise InputError(
            field, text[:RESOURCE_NAME_MAX_BYTES], f"this has {size} bytes, and 1 to {max_bytes} are allowed"
        )
    return text


def _trimmed(text: str, max_bytes: int, field: str) -> str:
    bounded = _bounded(text, max_bytes, field)
    if bounded != bounded.strip():
        raise InputError(field, bounded, "there is white space around it")
    if any(unicodedata.category(character) == "Cc" for character in bounded):
        raise InputError(field, bounded, "it holds a control character")
    return bounded
