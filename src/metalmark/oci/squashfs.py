"""An uncompressed squashfs made by mksquashfs from a tar stream, with what mksquashfs leaves out put right.

Uncompressed, because a benchmark should not pay for decompression; without fragments and a search for duplicates,
because neither saves much without compression and both take longer than everything else here.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio

from metalmark.model import NoSpace, StableError, ToolMissing, TransientError
from metalmark.oci.entry import Entry
from metalmark.oci.squashfs_root import describe_root
from metalmark.system import Child, find_tool, in_thread, spawn

_OPTIONS = (
    "-tar", "-noappend", "-no-recovery", "-exit-on-error", "-quiet", "-no-progress",
    "-noI", "-noD", "-noF", "-noX", "-no-fragments", "-no-duplicates",
    "-mkfs-time", "0", "-mem", "256M",
)  # fmt: skip
"""mksquashfs takes either these times or SOURCE_DATE_EPOCH, and the latter would also cut later file times."""
_ENVIRONMENT = {"LC_ALL": "C"}
_PACKAGE_HINT = "apt-get install squashfs-tools"
_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031
_ERROR_BYTES = 64 * 1024


class StopFlag:
    """Tells the thread that writes the stream that nobody wants it any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask it to stop."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether it should."""
        return self._event.is_set()


Feed = Callable[[int, StopFlag], Entry | None]
"""Writes the whole tar stream to a descriptor, blocking, and returns the entry of the root folder, if there is one."""


async def make_squashfs(target: Path, feed: Feed) -> None:
    """Make a squashfs of a tar stream. The file is complete and synced on return; after an error it may be anything.

    Args:
        target: An existing, empty file.
        feed: Runs in a worker thread.

    Raises:
        ToolMissing: mksquashfs is not installed, is too old or fails.
        TransientError: It was killed.
        NoSpace: The file system is full.
    """
    argv = [find_tool("mksquashfs", hint=_PACKAGE_HINT), "-", str(target), *_OPTIONS]
    root = await _run(argv, feed, target)
    await in_thread(_complete, target, root)


async def _run(argv: list[str], feed: Feed, target: Path) -> Entry | None:
    errors = os.memfd_create("mksquashfs-errors")
    try:
        child, writer = _start(argv, errors)
        try:
            root, broken = await _write(child, writer, feed)
            returncode = await child.wait()
        finally:
            child.close()
        if returncode != 0 or broken:
            raise _failure(returncode, os.pread(errors, _ERROR_BYTES, 0), target)
    finally:
        os.close(errors)
    return root


def _start(argv: list[str], errors: int) -> tuple[Child, int]:
    """Start mksquashfs; return it and the descriptor that its input is written to."""
    reader, writer = os.pipe()
    try:
        with suppress(OSError):
            # Fewer switches between the two processes; an ordinary user may be denied it.
            fcntl.fcntl(writer, _F_SETPIPE_SZ, _PIPE_BYTES)
        return spawn(argv, env=_ENVIRONMENT, stdin=reader, stdout=errors, stderr=errors), writer
    except BaseException:
        os.close(writer)
        raise
    finally:
        os.close(reader)


async def _write(child: Child, writer: int, feed: Feed) -> tuple[Entry | None, bool]:
    """Run the feed; return the root's entry and whether the stream was cut off because mksquashfs went away."""
    stop = StopFlag()

    def work() -> tuple[Entry | None, bool]:
        try:
            return feed(writer, stop), False
        except BrokenPipeError:
            return None, True
        finally:
            os.close(writer)

    async def stop_with_scope() -> None:
        # The thread cannot be cancelled: it ends when nobody reads its pipe, or when it looks at the flag.
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()
            child.signal(signal.SIGKILL)

    result: tuple[Entry | None, bool] | None = None
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_with_scope)
        try:
            result = await in_thread(work)
            # The stream has ended; what is left for mksquashfs is writing its tables.
            await child.wait()
        except Exception as error:  # noqa: BLE001 - raised again below: a task group would wrap it up
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    assert result is not None
    return result


def _failure(returncode: int, output: bytes, target: Path) -> StableError | TransientError:
    text = output.decode("utf-8", "backslashreplace").strip()
    if "No space left" in text or "Disk quota exceeded" in text:
        return NoSpace(
            f"no space left for {target}",
            hint="free some with `metalmark image gc`, or set METALMARK_HOME to a larger file system",
        )
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return TransientError(
            f"mksquashfs was ended by {name}", why="the root file system is not complete", hint="try again"
        )
    # Its usage text, which an old version answers with, is long; the reason is in the last or first lines.
    if "-tar" in text and "nvalid option" in text:
        return ToolMissing(
            "mksquashfs is too old to read tar streams",
            why="squashfs-tools 4.5 (Debian 12, Ubuntu 22.04) or newer is needed",
            hint=_PACKAGE_HINT,
        )
    return ToolMissing(f"mksquashfs failed with exit code {returncode}: {text[-500:]}", hint=_PACKAGE_HINT)


def _complete(target: Path, root: Entry | None) -> None:
    with target.open("r+b", buffering=0) as image:
        describe_root(image.fileno(), root)
        os.fsync(image.fileno())
