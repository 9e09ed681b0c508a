"""An install that updates itself: a folder with versions side by side, and a link to the one that counts.

::

    /opt/metalmark/
        launch                  starts the current version (`metalmark.runner.launcher`)
        current                 link to versions/NAME, changed by rename
        trial, failed           records of a version that has to prove itself, and of one that did not
        versions/NAME/          a virtual environment
            version.json        written last: a folder without it is rubbish

A version is on trial from the moment the link points at it until a server has taken a ``ready`` of it. The record is on
disk before the link is changed, so whatever dies in between, the next start knows.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import NoPermission, StableError
from metalmark.runner.launcher import CURRENT, DEFAULT_ROOT, FAILED, LAUNCHER, TRIAL, launcher_text
from metalmark.system import no_space_told, open_to_others, published, sync_folder, try_locked

VERSIONS = "versions"
WORK_PREFIX = "metalmark-work-"
"""How folders begin in which a version is prepared."""
LOCK = ".lock"
_RECORD = "version.json"


@dataclass(frozen=True, kw_only=True)
class InstalledVersion:
    """One version of an install."""

    name: str
    """Of its folder."""
    version: str
    checksum: str | None
    """SHA-256 of the artifact that it was made from; None: it was copied from another install."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A version that has to prove itself, by folder name, and the one that it would be taken back to."""

    before: str
    name: str


class Installation:
    """The folder of an install. Methods are blocking unless they say otherwise.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path = DEFAULT_ROOT) -> None:
        self.root = root

    @classmethod
    def of_this_process(cls, prefix: Path | None = None) -> Installation | None:
        """Return the install that this program runs from, or None when it is none that updates itself.

        Args:
            prefix: Folder of the virtual environment; None: this process's own.
        """
        place = (prefix or Path(sys.prefix)).resolve()
        found = cls(place.parent.parent)
        if place.parent.name != VERSIONS or not found.launcher.is_file() or not (place / _RECORD).is_file():
            return None
        return found

    @property
    def launcher(self) -> Path:
        """The program that starts the current version."""
        return self.root / LAUNCHER

    def folder(self, name: str) -> Path:
        """The folder of a version."""
        return self.root / VERSIONS / name

    def program(self, name: str) -> Path:
        """The command of a version."""
        return self.folder(name) / "bin/metalmark"

    def current(self) -> InstalledVersion | None:
        """Return the version that counts; None when there is none, or it is not whole."""
        try:
            target = (self.root / CURRENT).readlink()
        except OSError:
            return None
        return self.read(target.name)

    def read(self, name: str) -> InstalledVersion | None:
        """Return a version; None when there is none of that name, or it is not whole."""
        try:
            found = json.loads((self.folder(name) / _RECORD).read_text("utf-8"))
            return InstalledVersion(name=name, version=str(found["version"]), checksum=found["checksum"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def versions(self) -> list[InstalledVersion]:
        """Return all that are whole, by name."""
        names = sorted(entry.name for entry in (self.root / VERSIONS).glob("*"))
        return [found for name in names if (found := self.read(name)) is not None]

    def prepare(self) -> None:
        """Make the folders and the launcher, once it is sure that nobody else can change what is there.

        Raises:
            NoPermission: They cannot be written.
            NoSpace: The file system is full.
            StableError: There is something else, or others could change what is there.
        """
        try:
            self._check_owners()
            with no_space_told(self.root):
                (self.root / VERSIONS).mkdir(mode=0o755, parents=True, exist_ok=True)
            # Somebody may have been quicker.
            self._check_owners()
            with published(self.launcher, mode=0o755) as stream:
                stream.write(launcher_text(self.root).encode())
        except PermissionError as error:
            raise NoPermission(
                f"{self.root} cannot be written", why="versions are kept there", hint="run as root"
            ) from error
        except (FileExistsError, NotADirectoryError) as error:
            raise StableError(
                f"{self.root} is no folder", why="versions are kept there", hint="move it away"
            ) from error

    def _check_owners(self) -> None:
        place = open_to_others(self.root) or open_to_others(self.root / VERSIONS)
        if place is not None:
            raise StableError(
                f"{place} can be written by others",
                why="whoever can write there decides what the service runs",
                hint=f"chown root: {place} && chmod go-w {place}, or choose another folder with --root",
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from installing a version while the context lasts.

        Raises:
            StableError: One does so already.
        """
        lock = self.root / LOCK
        # Whoever can open it, if only to read, could hold it and so keep updates away.
        lock.touch(mode=0o600)
        lock.chmod(0o600)
        with try_locked(lock) as mine:
            if not mine:
                raise StableError(
                    f"another process installs a version in {self.root}", hint="try again when it is done"
                )
            yield

    def finish(self, version: InstalledVersion) -> None:
        """Write down that a version is whole."""
        record = {"format": 1, "version": version.version, "checksum": version.checksum}
        with published(self.folder(version.name) / _RECORD, mode=0o644) as stream:
            stream.write(json.dumps(record).encode() + b"\n")

    def discard(self, name: str) -> None:
        """Delete a version, its record first, so that no half of it counts."""
        (self.folder(name) / _RECORD).unlink(missing_ok=True)
        shutil.rmtree(self.folder(name), ignore_errors=True)

    def discard_all_but(self, *names: str) -> None:
        """Delete every other version, what was never finished, and what a killed process left of its work."""
        for entry in (self.root / VERSIONS).glob("*"):
            if entry.name not in names:
                self.discard(entry.name)
        for pattern in (f"{WORK_PREFIX}*", ".*.partial"):
            for left in self.root.glob(pattern):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)

    def switch(self, name: str) -> None:
        """Make a version the current one, at once and for good."""
        partial = self.root / f"{CURRENT}.partial"
        with no_space_told(partial):
            partial.unlink(missing_ok=True)
            partial.symlink_to(f"{VERSIONS}/{name}")
            partial.replace(self.root / CURRENT)
            sync_folder(self.root)

    def begin_trial(self, trial: Trial) -> None:
        """Make a version the current one, to be taken back unless it proves itself."""
        with published(self.root / TRIAL, mode=0o644) as stream:
            stream.write(f"{trial.before} {trial.name} new\n".encode())
        self.switch(trial.name)

    def trial(self) -> Trial | None:
        """Return the trial of the current version, if it is on one."""
        words = self._words(TRIAL)
        current = self.current()
        if len(words) != 3 or current is None or current.name != words[1]:
            return None
        return Trial(before=words[0], name=words[1])

    def end_trial(self) -> None:
        """The version has proved itself."""
        (self.root / TRIAL).unlink(missing_ok=True)
        sync_folder(self.root)

    def take_back(self, trial: Trial) -> None:
        """Make the version before the current one again, and keep that this one failed."""
        self.switch(trial.before)
        with suppress(FileNotFoundError):
            (self.root / TRIAL).replace(self.root / FAILED)
        sync_folder(self.root)

    def take_failure(self) -> InstalledVersion | None:
        """Return the version that was taken back since this was last asked, and forget it."""
        words = self._words(FAILED)
        (self.root / FAILED).unlink(missing_ok=True)
        return self.read(words[1]) if len(words) == 3 else None

    def _words(self, name: str) -> list[str]:
        try:
            words = (self.root / name).read_text("utf-8").split()
        except (OSError, ValueError):
            return []
        return words if all("/" not in word and not word.startswith(".") for word in words) else []
