"""Credentials by their shape: keys with a known prefix, and the three segments of a JWT.

Nothing here says whether a credential is valid; that takes a database or a secret. Their text never appears in a
``repr``, an error or a log.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from dataclasses import dataclass, field
from enum import StrEnum

from metalmark.model.errors import InputError

KEY_RANDOM_LENGTH = 30
_ALPHABET = string.digits + string.ascii_letters
_RANDOM = re.compile(rf"[0-9A-Za-z]{{{KEY_RANDOM_LENGTH}}}")
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_JWT_MAX_LENGTH = 8192
"""Ours have some 300 characters; a header may have more than any of them."""


class KeyKind(StrEnum):
    """Whose key it is; the value is the prefix, which programs check."""

    USER = "bencher_user_"
    PROJECT = "bencher_run_"
    RUNNER = "bencher_runner_"


@dataclass(frozen=True)
class ApiKey:
    """A key in plain text, as it is shown once and sent with requests. Made by `parse` or `new`."""

    kind: KeyKind
    text: str = field(repr=False)

    @classmethod
    def new(cls, kind: KeyKind) -> ApiKey:
        """Make a key of 30 random letters and digits: 178 bits, so that a plain hash of it is safe at rest."""
        return cls(kind, kind.value + "".join(secrets.choice(_ALPHABET) for _ in range(KEY_RANDOM_LENGTH)))

    @classmethod
    def parse(cls, text: str, *, field: str = "key") -> ApiKey:
        """Read a key of any kind.

        Raises:
            InputError: It has no known prefix, or not exactly 30 letters and digits after it. The text is not repeated.
        """
        # No prefix is the beginning of another.
        for kind in KeyKind:
            if text.startswith(kind.value) and _RANDOM.fullmatch(text[len(kind.value) :]):
                return cls(kind, text)
        prefixes = ", ".join(kind.value for kind in KeyKind)
        raise InputError(field, "***", f"a key is one of {prefixes} and {KEY_RANDOM_LENGTH} letters and digits")

    @property
    def digest(self) -> str:
        """What is kept of it: lower-case hex of the SHA-256 of the whole text."""
        return hashlib.sha256(self.text.encode("ascii")).hexdigest()


def has_jwt_shape(text: str) -> bool:
    """Whether a text is three non-empty unpadded base64url segments, and no longer than 8 KiB."""
    return len(text) <= _JWT_MAX_LENGTH and _JWT.fullmatch(text) is not None
