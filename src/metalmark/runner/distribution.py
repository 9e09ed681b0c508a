"""The Linux distribution of the host, and how a person there installs packages and becomes root."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Which one, by ``/etc/os-release``."""

    name: str
    """``debian``, ``ubuntu`` … (ID); empty when not known."""
    like: tuple[str, ...] = ()
    """What it is derived from (ID_LIKE)."""
    version: str = ""
    codename: str = ""
    title: str = ""
    """For people: ``Debian GNU/Linux 12 (bookworm)``."""

    @property
    def family(self) -> str:
        """``ubuntu``, ``debian`` (also for what is derived from them), or empty: not set up automatically."""
        for candidate in (self.name, *self.like):
            if candidate in ("ubuntu", "debian"):
                return candidate
        return ""


def read_distribution(root: Path = Path("/")) -> Distribution:
    """Read which distribution is installed under ``root``."""
    fields: dict[str, str] = {}
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = (root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            key, separator, value = line.partition("=")
            if separator:
                fields[key.strip()] = value.strip().strip("\"'")
        break
    return Distribution(
        name=fields.get("ID", ""),
        like=tuple(fields.get("ID_LIKE", "").split()),
        version=fields.get("VERSION_ID", ""),
        codename=fields.get("VERSION_CODENAME", ""),
        title=fields.get("PRETTY_NAME", "") or "an unknown Linux distribution",
    )


def architecture_of(machine: str) -> str:
    """Return the Debian architecture of a ``uname -m`` value; the value itself when it is not one of ours."""
    return _ARCHITECTURES.get(machine, machine)


def as_root(argv: Sequence[str], *, uid: int) -> str:
    """Return a command line to copy, with ``sudo`` in front unless the user is root."""
    line = shlex.join(argv)
    return line if uid == 0 else f"sudo {line}"


def install_command(packages: Sequence[str], *, family: str, uid: int) -> str:
    """Return how packages are installed there, or a sentence where we do not know the distribution."""
    if not family:
        return f"install what your distribution calls {', '.join(packages)}"
    return as_root(["apt-get", "install", "--no-install-recommends", *packages], uid=uid)
