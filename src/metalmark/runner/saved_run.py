"""Keeps a run in a folder (``--save``): result.json, the raw streams, and the output files.

::

    DIR/result.json                       the result; its `saved` fields name the files below
    DIR/iteration-1/stdout, stderr        the kept bytes
    DIR/iteration-1/output/…              output files below their paths in the box, names made harmless
    DIR/iteration-1/console.log           with --debug-boot
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from metalmark.model import FileResult, FilesResult, InputError, IterationResult
from metalmark.runner.executor import RunRecord
from metalmark.runner.iteration import IterationRecord
from metalmark.system import no_space_told, sync_folder

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+=@, ()[]{}~#")
_NAME_BYTES = 200
_PATH_BYTES = 1024
"""Below the folder of output files: what PATH_MAX leaves after a long --save."""
_DEPTH = 32


def check_target(folder: Path) -> None:
    """Find out before the run whether it can be saved there.

    Raises:
        InputError: The folder is not new and not empty, or its parent cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError("--save", str(folder), "it exists and is not an empty folder", hint="name a new one")
    except PermissionError as error:
        raise InputError("--save", str(folder), "it cannot be looked at") from error
    parent = folder.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError("--save", str(folder), f"{parent} is not a folder that can be written")


def save_run(record: RunRecord, folder: Path) -> None:
    """Write everything beside the target and move it there at once.

    Raises:
        NoSpace: The file system is full; nothing of it stays.
        InputError: The folder has been filled by somebody else meanwhile.
    """
    folder = folder.absolute()
    with no_space_told(folder):
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name[:64]}.", suffix=".partial", dir=folder.parent))
        try:
            iterations = tuple(_save_iteration(iteration, partial) for iteration in record.iterations)
            result = record.result.model_copy(update={"iterations": iterations})
            _write(partial / "result.json", result.model_dump_json(indent=2).encode() + b"\n")
            partial.chmod(0o755)
            sync_folder(partial)
            try:
                partial.rename(folder)
            except OSError as error:
                raise InputError("--save", str(folder), f"it cannot be replaced ({error.strerror})") from error
            sync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _save_iteration(record: IterationRecord, root: Path) -> IterationResult:
    result = record.result
    name = f"iteration-{result.iteration}"
    folder = root / name
    (folder / "output").mkdir(parents=True)
    for stream in ("stdout", "stderr"):
        _copy(record.folder / stream, folder / stream)
    if (record.folder / "console.log").exists():
        _copy(record.folder / "console.log", folder / "console.log")
    files: list[FileResult] = []
    for file, collected in zip(result.output.files, record.collected.files, strict=True):
        target = _place(folder / "output", collected.path, len(files))
        _copy(collected.kept, target)
        files.append(file.model_copy(update={"saved": str(target.relative_to(root))}))
    output = FilesResult(files=tuple(files), missing=result.output.missing, truncated=result.output.truncated)
    return result.model_copy(
        update={
            "stdout": result.stdout.model_copy(update={"saved": f"{name}/stdout"}),
            "stderr": result.stderr.model_copy(update={"saved": f"{name}/stderr"}),
            "output": output,
        }
    )


def _place(folder: Path, path: str, number: int) -> Path:
    """Return a new name below a folder that reads like ``path``, and make its parents."""
    parts = [harmless(part) for part in path.split("/") if part not in ("", ".", "..")]
    fits = 0 < len(parts) <= _DEPTH and len("/".join(parts)) <= _PATH_BYTES
    target = folder.joinpath(*parts) if fits else folder / f"file-{number}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        target = folder / f"file-{number}"
    # Two paths of the box can read the same here, and one can be the folder of another.
    while os.path.lexists(target):
        number += 1
        target = folder / f"file-{number}"
    return target


def harmless(name: str) -> str:
    """Return a file name that means nothing to a shell, a terminal or a path: other bytes become ``%XX``."""
    raw = name.encode("utf-8", "surrogateescape")
    kept = "".join(
        char if char in _PLAIN else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in name
    )
    if kept in ("", ".", ".."):
        kept = "".join(f"%{byte:02X}" for byte in raw) or "%"
    return kept[:_NAME_BYTES]


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1024 * 1024)
        writer.flush()
        os.fsync(writer.fileno())


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as writer:
        writer.write(data)
        writer.flush()
        os.fsync(writer.fileno())
