"""Who a client says it is: a key or a token, where it comes from, and that nobody sees it on the way."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from metalmark.model import InputError, StableError

CREDENTIAL_NAME = "metalmark-api-key"
"""File name of the key below ``$CREDENTIALS_DIRECTORY``, as in systemd's ``LoadCredential=metalmark-api-key:…``."""

_HIDDEN = "***"
_IN_COMMAND = "everybody on this machine can read what stands after {}; use --key-file"
_LONGEST = 64 * 1024
_KEY = re.compile(r"bencher_(user|run|runner)_[0-9A-Za-z]{30}")
_TOKEN = re.compile(r"[0-9A-Za-z_-]+\.[0-9A-Za-z_-]+\.[0-9A-Za-z_-]+")


class CredentialKind(Enum):
    """What a credential stands for."""

    USER_KEY = "bencher_user_"
    PROJECT_KEY = "bencher_run_"
    RUNNER_KEY = "bencher_runner_"
    TOKEN = "token"  # noqa: S105 - the name of a kind
    """A JSON web token, as sign-in gives it."""


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A key or token. Its text is in no ``repr`` and no error."""

    kind: CredentialKind
    secret: str = field(repr=False)
    source: str
    """Where it was found, in words."""
    exposed: str = ""
    """Who else can read it there, in words; empty when nobody can who should not."""

    @property
    def header(self) -> str:
        """The value of the header ``Authorization``."""
        return f"Bearer {self.secret}"


def parse_key(text: str, *, source: str, exposed: str = "") -> Credential:
    """Read the key of a user or of a project.

    Args:
        text: The key, perhaps with white space around it.
        source: Where it was found, in words.
        exposed: Who else can read it there.

    Raises:
        InputError: It is none. The text is not repeated.
    """
    key = text.strip()
    match = _KEY.fullmatch(key)
    if match is None:
        hint = "a token is given with --token" if _TOKEN.fullmatch(key) else "copy the whole key, without quotes"
        raise InputError(source, _HIDDEN, "this is no key of a user or project", hint=hint)
    if match[1] == "runner":
        raise InputError(
            source, _HIDDEN, "this is the key of a runner, which opens nothing but its channel", hint="use a user's key"
        )
    return Credential(kind=CredentialKind(f"bencher_{match[1]}_"), secret=key, source=source, exposed=exposed)


def parse_token(text: str, *, source: str, exposed: str = "") -> Credential:
    """Read a JSON web token.

    Args:
        text: The token, perhaps with white space around it.
        source: Where it was found, in words.
        exposed: Who else can read it there.

    Raises:
        InputError: It is none. The text is not repeated.
    """
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        hint = "a key is given with --key-file" if _KEY.fullmatch(token) else "copy the whole token, without quotes"
        raise InputError(source, _HIDDEN, "this is no token", hint=hint)
    return Credential(kind=CredentialKind.TOKEN, secret=token, source=source, exposed=exposed)


def read_secret_text(path: Path, *, source: str) -> tuple[str, str]:
    """Read the text of a file that holds a secret; ``-`` is standard input. Blocking.

    Returns:
        The text, and who else can read it there, in words; empty when nobody.

    Raises:
        InputError: It cannot be read.
    """
    exposed = ""
    try:
        if str(path) == "-":
            text = sys.stdin.read(_LONGEST)
        else:
            with path.open("rb") as stream:
                text = stream.read(_LONGEST).decode("ascii", errors="replace")
                mode = os.fstat(stream.fileno()).st_mode
            # What is no regular file, like the pipe of a shell's <(…), is gone with who made it.
            if stat.S_ISREG(mode) and mode & 0o044:
                exposed = f"other users can read {path}; take that from them with chmod 600"
    except OSError as error:
        raise InputError(source, str(path), error.strerror or "it cannot be read") from None
    return text, exposed


def read_key_file(path: Path, *, source: str) -> Credential:
    """Read a key or token from a file; ``-`` is standard input. Blocking.

    Raises:
        InputError: It cannot be read, or holds neither.
    """
    text, exposed = read_secret_text(path, source=source)
    if _TOKEN.fullmatch(text.strip()):
        return parse_token(text, source=f"{source} {path}", exposed=exposed)
    return parse_key(text, source=f"{source} {path}", exposed=exposed)


def find_credential(
    *,
    key: str | None = None,
    token: str | None = None,
    key_file: Path | None = None,
    environment: Mapping[str, str],
    configured: Path | None = None,
) -> Credential | None:
    """Return the credential that flags, environment, systemd or configuration give, in this order; None without any.

    Args:
        key: From ``--key``.
        token: From ``--token``.
        key_file: From ``--key-file``.
        environment: Where ``METALMARK_API_KEY``, ``METALMARK_API_KEY_FILE``, ``METALMARK_API_TOKEN``, the names that
            begin with ``BENCHER_`` instead, and ``CREDENTIALS_DIRECTORY`` are read.
        configured: The key file that the configuration names.

    Raises:
        InputError: Two are given in the same way, or the one that counts cannot be read.
    """
    flags = [name for name, value in (("--key", key), ("--token", token), ("--key-file", key_file)) if value]
    if len(flags) > 1:
        raise InputError(flags[0], _HIDDEN, f"{flags[1]} is given too", hint="give one of them")
    if key:
        return parse_key(key, source="--key", exposed=_IN_COMMAND.format("--key"))
    if token:
        return parse_token(token, source="--token", exposed=_IN_COMMAND.format("--token"))
    if key_file is not None:
        return read_key_file(key_file, source="--key-file")
    return _of_environment(environment) or (
        read_key_file(configured, source="key_file") if configured is not None else None
    )


def _of_environment(environment: Mapping[str, str]) -> Credential | None:
    for prefix in ("METALMARK", "BENCHER"):
        key, token = f"{prefix}_API_KEY", f"{prefix}_API_TOKEN"
        named = [name for name in (key, f"{key}_FILE", token) if environment.get(name)]
        if len(named) > 1:
            raise InputError(named[0], _HIDDEN, f"{named[1]} is set too", hint="set one of them")
        if environment.get(key):
            return parse_key(environment[key], source=key)
        if environment.get(f"{key}_FILE"):
            return read_key_file(Path(environment[f"{key}_FILE"]), source=f"{key}_FILE")
        if environment.get(token):
            return parse_token(environment[token], source=token)
    if folder := environment.get("CREDENTIALS_DIRECTORY"):
        path = Path(folder) / CREDENTIAL_NAME
        if path.exists():
            return read_key_file(path, source="systemd credential")
    return None


def credential_needed() -> StableError:
    """Return the error of a command that cannot work without a credential."""
    return StableError(
        "no credential is given",
        why="the server answers this only to a user",
        hint="put a user's key into a file and name it with --key-file, or set METALMARK_API_KEY",
    )
