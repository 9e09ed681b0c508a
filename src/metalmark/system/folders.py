"""Where Metalmark keeps its files.

Root uses ``/var/lib/metalmark``, ``/var/cache/metalmark``, ``/run/metalmark`` and ``/etc/metalmark``; a user the XDG
folders; ``METALMARK_HOME`` moves all four under one folder. Folders are made with mode 0700.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import NoPermission, StableError
from metalmark.system.files import no_space_told, published

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

    def xdg(name: str, default: Path) -> Path:
        # The XDG base directory specification: a relative path is invalid and to be ignored.
        value = env.get(name, "")
        return Path(value) / "metalmark" if value.startswith("/") else default

    state = xdg("XDG_STATE_HOME", home / ".local/state/metalmark")
    return Folders(
        state=state,
        cache=xdg("XDG_CACHE_HOME", home / ".cache/metalmark"),
        run=xdg("XDG_RUNTIME_DIR", state / "run"),
        config=xdg("XDG_CONFIG_HOME", home / ".config/metalmark"),
    )


def ensure_private(folder: Path) -> Path:
    """Make a folder (mode 0700) with its format-version file, and return it.

    Raises:
        NoPermission: It cannot be made, or is somebody else's.
        NoSpace: The file system is full.
        StableError: It is no folder, or a later version of Metalmark has made it.
    """
    version = folder / "format-version"
    with no_space_told(folder):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Root may look after a user's folder; a user must not trust what another can change.
            if os.geteuid() not in (0, folder.stat().st_uid):
                raise PermissionError
            if not version.exists():
                with published(version) as stream:
                    stream.write(FORMAT_VERSION.encode("ascii"))
            found = version.read_text(encoding="ascii", errors="replace")
        except (FileExistsError, NotADirectoryError) as error:
            raise StableError(
                f"{folder} is not a folder",
                why="Metalmark keeps its files there",
                hint="move it away, or set METALMARK_HOME to another place",
            ) from error
        except OSError as error:
            if error.errno not in (None, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
                raise
            raise NoPermission(
                f"{folder} cannot be written, or is another user's",
                why="Metalmark keeps its files there",
                hint="set METALMARK_HOME to a folder of your own, or run as the folder's owner",
            ) from error
    if found != FORMAT_VERSION:
        raise StableError(
            f"{folder} has format {found.strip()[:20]!r}",
            why=f"this version of Metalmark reads format {FORMAT_VERSION.strip()}",
            hint="upgrade Metalmark, or set METALMARK_HOME to another place",
        )
    return folder
