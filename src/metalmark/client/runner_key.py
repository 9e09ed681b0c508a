"""The key of a runner, which opens its channel and nothing else: where it comes from, and that nobody sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from metalmark.client.credential import Credential, CredentialKind, read_secret_text
from metalmark.model import InputError

RUNNER_CREDENTIAL_NAME = "runner-key"
"""File name below ``$CREDENTIALS_DIRECTORY``, as in systemd's ``LoadCredential=runner-key:…``."""

RUNNER_KEY_VARIABLES = ("METALMARK_RUNNER_KEY", "BENCHER_RUNNER_KEY")
"""Variables that hold the key itself; the first that is set counts."""

_HIDDEN = "***"
_KEY = re.compile(r"bencher_runner_[0-9A-Za-z]{30}")


def parse_runner_key(text: str, *, source: str, exposed: str = "") -> Credential:
    """Read the key of a runner.

    Args:
        text: The key, perhaps with white space around it.
        source: Where it was found, in words.
        exposed: Who else can read it there.

    Raises:
        InputError: It is none. The text is not repeated.
    """
    key = text.strip()
    if not _KEY.fullmatch(key):
        raise InputError(
            source,
            _HIDDEN,
            "this is no key of a runner",
            hint="`metalmark runner create` and `metalmark runner key` show it: it begins with bencher_runner_",
        )
    return Credential(kind=CredentialKind.RUNNER_KEY, secret=key, source=source, exposed=exposed)


def find_runner_key(
    *, key: str | None = None, key_file: Path | None = None, environment: Mapping[str, str]
) -> Credential:
    """Return the key that a flag, the environment or systemd gives, in this order. Blocking.

    Args:
        key: From ``--key``.
        key_file: From ``--key-file``; ``-`` is standard input.
        environment: Where ``METALMARK_RUNNER_KEY``, ``METALMARK_RUNNER_KEY_FILE``, the names that begin with
            ``BENCHER_`` instead, and ``CREDENTIALS_DIRECTORY`` are read.

    Raises:
        InputError: There is none; two are given in the same way; or the one that counts cannot be read.
    """
    if key and key_file is not None:
        raise InputError("--key", _HIDDEN, "--key-file is given too", hint="give one of them")
    if key:
        exposed = "everybody on this machine can read what stands after --key; use --key-file"
        return parse_runner_key(key, source="--key", exposed=exposed)
    if key_file is not None:
        return _read(key_file, source="--key-file")
    for name in RUNNER_KEY_VARIABLES:
        text, path = environment.get(name), environment.get(f"{name}_FILE")
        if text and path:
            raise InputError(name, _HIDDEN, f"{name}_FILE is set too", hint="set one of them")
        if text:
            return parse_runner_key(text, source=name)
        if path:
            return _read(Path(path), source=f"{name}_FILE")
    if folder := environment.get("CREDENTIALS_DIRECTORY"):
        path_of_systemd = Path(folder) / RUNNER_CREDENTIAL_NAME
        if path_of_systemd.exists():
            return _read(path_of_systemd, source="systemd credential")
    raise InputError(
        "--key-file",
        None,
        "the server opens a channel only to a runner whose key it knows",
        hint="put the key into a file and name it, or set METALMARK_RUNNER_KEY",
    )


def _read(path: Path, *, source: str) -> Credential:
    text, exposed = read_secret_text(path, source=source)
    return parse_runner_key(text, source=f"{source} {path}", exposed=exposed)
