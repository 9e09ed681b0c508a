"""Owner records of boxes, and the removal of what dead owners left.

Every box has two folders of its own: a workspace under ``<run>/boxes/<name>`` (sockets, logs, records) and a disk
folder under ``<cache>/boxes/<name>`` (scratch disks: large, on the file system of the cached images). The workspace
holds ``owner.jsonl``: the first line names the process that owns the box, each further line one thing outside of the
folders, written *before* that thing is made. ``docs/concepts/cleanup.md`` is the prose.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from metalmark.model import InputError
from metalmark.system import (
    BoxCgroup,
    Folders,
    ProcessIdentity,
    detach_loop,
    ensure_private,
    identity_of,
    is_alive,
    kill_process,
    locked,
    no_space_told,
    own_identity,
    read_layout,
    read_loops,
    sync_folder,
    unmount_below,
)

OWNER_FILE = "owner.jsonl"
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


class Kind(StrEnum):
    """Things that outlive the process that made them, and are not files of the box's own folders."""

    CGROUP = "cgroup"
    """Id: the box's name; all of its cgroups."""
    MOUNT = "mount"
    """Id: the folder it is mounted on, in the host's mount namespace."""
    LOOP = "loop"
    """Id: the path of the backing file."""
    PROCESS = "process"
    """Id: `identity_text`. Recorded as soon as it has started."""
    FILE = "file"
    """Id: the path of a file or socket outside of the box's folders."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One recorded thing."""

    kind: Kind
    id: str


@dataclass(frozen=True, kw_only=True)
class BoxRecord:
    """The folders and the record of one box."""

    name: str
    workspace: Path
    disk: Path

    @classmethod
    @contextmanager
    def open(cls, folders: Folders, name: str) -> Iterator[BoxRecord]:
        """Make the folders of a box, owned by this process, and remove them on leaving.

        A box of which something could not be taken down, a process stuck in the kernel say, keeps its workspace with
        the record, for the sweep that comes after this process.

        Args:
            folders: The user's folders.
            name: The box's name; ``[a-z0-9-]``, at most 32 characters, in use by no other box.

        Raises:
            InputError: The name cannot be used.
            NoPermission, NoSpace
        """
        if not 0 < len(name) <= 32 or not _NAME_CHARACTERS.issuperset(name):
            raise InputError("box name", name, "it has to be 1 to 32 of the characters a-z, 0-9 and -")
        record = cls(name=name, workspace=_boxes(folders.run) / name, disk=_boxes(folders.cache) / name)
        with locked(_lock_file(folders)), no_space_told(record.workspace):
            try:
                record.workspace.mkdir(mode=0o700)
            except FileExistsError:
                raise InputError("box name", name, "another box has it", hint="use another name") from None
            try:
                _claim(record.workspace)
                record.disk.mkdir(mode=0o700, exist_ok=True)
            except BaseException:
                shutil.rmtree(record.workspace, ignore_errors=True)
                raise
        try:
            yield record
        finally:
            # The workspace last: as long as it is there, a sweep knows of the rest.
            shutil.rmtree(record.disk, ignore_errors=True)
            if not _is_left(record.workspace):
                shutil.rmtree(record.workspace, ignore_errors=True)

    def record(self, kind: Kind, identifier: str) -> None:
        """Write down a thing that is about to be made."""
        note(self.workspace, kind, identifier)


def note(workspace: Path, kind: Kind, identifier: str) -> None:
    """Write down, in a box's workspace, a thing that is about to be made there for this process.

    The line survives this process, not the machine: what is recorded here does not survive a reboot either.

    Raises:
        NoSpace
    """
    owner = workspace / OWNER_FILE
    if not owner.exists():
        _claim(workspace)
    line = json.dumps({"kind": kind.value, "id": identifier}) + "\n"
    with no_space_told(owner), owner.open("ab", buffering=0) as stream:
        stream.write(line.encode())


def note_process(workspace: Path, pid: int) -> None:
    """Write down a process of this program's; nothing happens when it has ended."""
    identity = identity_of(pid)
    if identity is not None:
        note(workspace, Kind.PROCESS, identity_text(identity))


def identity_text(identity: ProcessIdentity) -> str:
    """Return a process's identity as one word."""
    return f"{identity.pid}:{identity.start_ticks}:{identity.boot_id}"


@dataclass(frozen=True, kw_only=True)
class Removed:
    """One thing that a dead owner had left and that is gone now."""

    box: str
    kind: str
    id: str


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """What a sweep did."""

    removed: tuple[Removed, ...] = ()
    alive: tuple[str, ...] = ()
    """Boxes whose owner still runs; left alone."""
    failed: tuple[str, ...] = ()
    """What could not be removed, and why; the record is kept for the next sweep."""


def sweep(folders: Folders) -> SweepReport:
    """Remove everything that boxes of dead processes left on this machine. Blocking; safe with several processes.

    Processes are killed first, by cgroup and by identity; then mounts, loop devices, cgroups and files go. A box
    whose owner lives is not touched.

    Raises:
        NoPermission: The folders are somebody else's.
    """
    removed: list[Removed] = []
    alive: list[str] = []
    failed: list[str] = []
    with locked(_lock_file(folders)):
        names = {
            folder.name for base in (folders.run, folders.cache) for folder in _boxes(base).iterdir() if folder.is_dir()
        }
        for name in sorted(names):
            workspace, disk = _boxes(folders.run) / name, _boxes(folders.cache) / name
            if _owner_lives(workspace):
                alive.append(name)
                continue
            before = len(failed)
            for kind, identifier, error in _remove_box(workspace, disk):
                if error:
                    failed.append(f"{kind} {identifier} of box {name}: {error}")
                else:
                    removed.append(Removed(box=name, kind=kind, id=identifier))
            if len(failed) == before:
                for folder in (disk, workspace):
                    if folder.exists():
                        shutil.rmtree(folder, ignore_errors=True)
                        removed.append(Removed(box=name, kind="folder", id=str(folder)))
    return SweepReport(removed=tuple(removed), alive=tuple(alive), failed=tuple(failed))


def read_record(workspace: Path) -> tuple[ProcessIdentity | None, tuple[Resource, ...]]:
    """Read who owns a box and what is recorded for it; a line that was cut by a crash is left out."""
    owner: ProcessIdentity | None = None
    resources: list[Resource] = []
    try:
        lines = (workspace / OWNER_FILE).read_bytes().splitlines()
    except OSError:
        return None, ()
    for line in lines:
        try:
            found = json.loads(line)
            if "owner" in found:
                owner = ProcessIdentity(**found["owner"])
            else:
                resources.append(Resource(kind=Kind(found["kind"]), id=str(found["id"])))
        except (ValueError, TypeError, KeyError):
            continue
    return owner, tuple(resources)


_Step = tuple[str, str, str]
"""Kind and id of a thing, and why it could not be removed; nothing when it was."""


def _remove_box(workspace: Path, disk: Path) -> Iterator[_Step]:
    _, resources = read_record(workspace)
    of_kind = {kind: [item.id for item in resources if item.kind is kind] for kind in Kind}
    groups = [BoxCgroup(read_layout(), item) for item in dict.fromkeys(of_kind[Kind.CGROUP])]
    yield from _end_processes(groups, of_kind[Kind.PROCESS])
    yield from _undo_mounts([*of_kind[Kind.MOUNT], str(workspace), str(disk)])
    yield from _undo_loops((f"{workspace}/", f"{disk}/"), of_kind[Kind.LOOP])
    for group in groups:
        if any(folder.exists() for folder in group.folders()):
            yield Kind.CGROUP, group.name, "" if group.remove() else "it cannot be removed"
    for text in of_kind[Kind.FILE]:
        if os.path.lexists(text):
            Path(text).unlink(missing_ok=True)
            yield Kind.FILE, text, ""


def _end_processes(groups: list[BoxCgroup], recorded: list[str]) -> Iterator[_Step]:
    for group in groups:
        if not group.kill():
            yield Kind.CGROUP, group.name, "its processes do not end"
    for text in recorded:
        identity = _identity(text)
        if identity is not None and is_alive(identity):
            yield Kind.PROCESS, str(identity.pid), "" if kill_process(identity) else "it does not end"


def _undo_mounts(places: list[str]) -> Iterator[_Step]:
    for folder in dict.fromkeys(places):
        try:
            for target in unmount_below(Path(folder)):
                yield Kind.MOUNT, target, ""
        except OSError as error:
            yield Kind.MOUNT, folder, str(error)


def _undo_loops(prefixes: tuple[str, ...], recorded: list[str]) -> Iterator[_Step]:
    for loop in read_loops():
        if not loop.backing_file.startswith(prefixes) and loop.backing_file not in recorded:
            continue
        try:
            detach_loop(loop.device)
        except OSError as error:
            yield Kind.LOOP, str(loop.device), str(error)
        else:
            yield Kind.LOOP, str(loop.device), ""


def _is_left(workspace: Path) -> bool:
    """Whether there still is a recorded cgroup or process of a box that was taken down."""
    _, resources = read_record(workspace)
    names = {item.id for item in resources if item.kind is Kind.CGROUP}
    if names and any(folder.exists() for name in names for folder in BoxCgroup(read_layout(), name).folders()):
        return True
    processes = (_identity(item.id) for item in resources if item.kind is Kind.PROCESS)
    return any(identity is not None and is_alive(identity) for identity in processes)


def _owner_lives(workspace: Path) -> bool:
    owner, _ = read_record(workspace)
    return owner is not None and is_alive(owner)


def _claim(workspace: Path) -> None:
    line = json.dumps({"owner": asdict(own_identity()), "format": 1}) + "\n"
    with (workspace / OWNER_FILE).open("xb") as stream:
        stream.write(line.encode())
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(workspace)


def _identity(text: str) -> ProcessIdentity | None:
    parts = text.split(":")
    if len(parts) != 3 or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    return ProcessIdentity(pid=int(parts[0]), start_ticks=int(parts[1]), boot_id=parts[2])


def _boxes(base: Path) -> Path:
    ensure_private(base)
    folder = base / "boxes"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _lock_file(folders: Folders) -> Path:
    return ensure_private(folders.run) / "boxes.lock"
