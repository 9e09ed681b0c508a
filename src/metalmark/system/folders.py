"""Where Metalmark keeps its files.

Root uses ``/var/lib/metalmark``, ``/var/cache/metalmark``, ``/run/metalmark`` and ``/etc/metalmark``; a user the XDG
folders; ``METALMARK_HOME`` moves all four under one folder. Folders are made with mode 0700.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import NoPermission

FORMAT_VERSION = "1\n"


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The four places."""

    state: Path
    """Journal, spool, queue, database, owner records: must survive a reboot."""
    cache: Path
    """Images and root file systems: may be deleted at any time nobody runs."""
    run: Path
    """Sockets, locks, workspaces: gone after a reboot."""
    config: Path


def folders(environment: Mapping[str, str] | None = None, *, uid: int | None = None) -> Folders:
    """Return the folders of a user; the default is this process's own user and environment."""
    env = os.environ if environment is None else environment
    if home := env.get("METALMARK_HOME"):
        base = Path(home).absolute()
        return Folders(state=base / "state", cache=base / "cache", run=base / "run", config=base / "config")
    if (os.geteuid() if uid is None else uid) == 0:
        return Folders(
            state=Path("/var/lib/metalmark"),
            cache=Path("/var/cache/metalmark"),
            run=Path("/run/metalmark"),
            config=Path("/etc/metalmark"),
        )
    return _xdg(env)


def _xdg(env: Mapping[str, str]) -> Folders:
    home = Path(env.get("HOME") or "~").expanduser()
    state = Path(env.get("XDG_STATE_HOME") or home / ".local/state") / "metalmark"
    runtime = env.get("XDG_RUNTIME_DIR")
    return Folders(
        state=state,
        cache=Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "metalmark",
        run=Path(runtime) / "metalmark" if runtime else state / "run",
        config=Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "metalmark",
    )


def ensure_private(folder: Path) -> Path:
    """Make a folder (mode 0700) with its format-version file, and return it.

    Raises:
        NoPermission: It cannot be made or is somebody else's.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        version = folder / "format-version"
        if not version.exists():
            version.write_text(FORMAT_VERSION, encoding="ascii")
    except PermissionError as error:
        raise NoPermission(
            f"{folder} cannot be written",
            why="Metalmark keeps its files there",
            hint="set METALMARK_HOME to a folder of your own, or run as the folder's owner",
        ) from error
    return folder
