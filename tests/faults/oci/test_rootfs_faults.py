"""Whatever happens to a build, the cache holds nothing half-made, and the next start is as if nothing had been."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from metalmark.model import GIB, LayerRefused, MetalmarkError, NoSpace, RootfsMode, ToolMissing, TransientError
from metalmark.oci import ImageCache, ResolvedImage, open_rootfs, rootfs_cache
from metalmark.system import read_loops, read_mounts
from metalmark.testing.layers import END, entry, image_of, layer_blob

pytestmark = pytest.mark.anyio
_NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
_WAIT_S = 20.0


@pytest.fixture
def image(tmp_path: Path) -> ResolvedImage:
    layer = b"".join(entry(b"f%d" % n, os.urandom(200_000)) for n in range(40)) + END
    return image_of([layer_blob(tmp_path, layer)])


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH; a test puts its own tools there."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "setpriv").symlink_to(shutil.which("setpriv") or "/usr/bin/setpriv")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def write_tool(tools: Path, name: str, text: str) -> None:
    path = tools / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


async def build(
    image: ResolvedImage, cache: ImageCache, *, mode: RootfsMode = RootfsMode.OVERLAY
) -> MetalmarkError | None:
    try:
        async with open_rootfs(image, cache=cache, mode=mode, disk_bytes=GIB) as rootfs:
            assert rootfs.path.stat().st_size > 0
    except MetalmarkError as error:
        return error
    return None


def left(folder: Path) -> list[str]:
    """What a build left in the cache."""
    found = folder / "rootfs"
    return [path.name for path in found.iterdir() if path.is_file() and path.name != "format-version"]


async def test_missing_mksquashfs_is_told_with_its_package(image: ResolvedImage, tools: Path, tmp_path: Path) -> None:
    error = await build(image, ImageCache(tmp_path / "cache"))
    assert isinstance(error, ToolMissing)
    assert "squashfs-tools" in error.hint
    assert left(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        ("kill -9 $$", TransientError, "ended by SIGKILL"),
        ("head -c 1000000 >/dev/null; kill -9 $$", TransientError, "ended by SIGKILL"),
        ("cat >/dev/null; kill -SEGV $$", TransientError, "ended by SIGSEGV"),
        ("echo 'mksquashfs: -tar is an invalid option' >&2; exit 1", ToolMissing, "too old"),
        ("cat >/dev/null; echo FATAL ERROR: strange >&2; exit 1", ToolMissing, "strange"),
        ("cat >/dev/null; echo Write failed because No space left on device >&2; exit 1", NoSpace, "no space left"),
        ("exit 0", ToolMissing, "exit code 0"),
        ("cat >/dev/null; exit 0", ToolMissing, "no squashfs"),
    ],
)  # fmt: skip
async def test_mksquashfs_that_fails(
    image: ResolvedImage, tools: Path, tmp_path: Path, script: str, kind: type[MetalmarkError], text: str
) -> None:
    write_tool(tools, "mksquashfs", f"PATH=/usr/bin:/bin\n{script}")
    error = await build(image, ImageCache(tmp_path / "cache"))
    assert isinstance(error, kind)
    assert text in str(error)
    assert left(tmp_path / "cache") == []


async def test_cancelled_build_ends_its_tool_and_leaves_nothing(
    image: ResolvedImage, tools: Path, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    write_tool(tools, "mksquashfs", f"echo $$ >{pid_file}.new; /bin/mv {pid_file}.new {pid_file}; exec /bin/sleep 1000")

    async def cancel_when_it_runs(scope: anyio.CancelScope) -> None:
        while not pid_file.exists():
            await anyio.sleep(0.01)
        scope.cancel()

    with anyio.fail_after(_WAIT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_when_it_runs, tasks.cancel_scope)
            await build(image, ImageCache(tmp_path / "cache"))
    assert not Path(f"/proc/{pid_file.read_text().strip()}").exists()
    assert left(tmp_path / "cache") == []


async def test_layer_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    layer = entry(b"f", os.urandom(3_000_000))[:2_000_000]
    image = image_of([layer_blob(tmp_path, layer)])
    error = await build(image, ImageCache(tmp_path / "cache"))
    assert isinstance(error, LayerRefused)
    assert left(tmp_path / "cache") == []


async def test_layer_that_vanishes_is_no_half_root(image: ResolvedImage, tmp_path: Path) -> None:
    image.layers[0].path.unlink()
    with pytest.raises(FileNotFoundError):
        await build(image, ImageCache(tmp_path / "cache"))
    assert left(tmp_path / "cache") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@_NEEDS_ROOT
async def test_full_disk(image: ResolvedImage, small_disk: Path) -> None:
    error = await build(image, ImageCache(small_disk))
    assert isinstance(error, NoSpace)
    assert "METALMARK_HOME" in error.hint
    assert left(small_disk) == []


@_NEEDS_ROOT
async def test_full_disk_under_an_ext4(small_disk: Path, tmp_path: Path) -> None:
    layer = entry(b"f", os.urandom(2_500_000)) + END
    error = await build(image_of([layer_blob(tmp_path, layer)]), ImageCache(small_disk), mode=RootfsMode.EXT4)
    assert isinstance(error, NoSpace)
    assert [Path(name).suffix for name in left(small_disk)] == [".squashfs"]


_BUILDER = """
import sys, anyio
from pathlib import Path
from metalmark.model import RootfsMode
from metalmark.oci import ImageCache, open_rootfs
from metalmark.testing.layers import image_of, layer_blob
async def main():
    folder = Path(sys.argv[1])
    image = image_of([layer_blob(folder, Path(sys.argv[2]).read_bytes())])
    async with open_rootfs(image, cache=ImageCache(folder / "cache"), mode=RootfsMode(sys.argv[3]), disk_bytes=1 << 30):
        Path(sys.argv[4]).write_text("open")
        await anyio.sleep(1000)
anyio.run(main)
"""
_TELL = "echo $$ >{told}.new; /bin/mv {told}.new {told}; "


@pytest.mark.parametrize(
    ("point", "mode", "tool", "script"),
    [
        ("before a byte is read", "overlay", "mksquashfs", "exec /bin/sleep 1000"),
        ("while the stream is read", "overlay", "mksquashfs", "exec /usr/bin/dd bs=1 of=/dev/null"),
        ("after the stream", "overlay", "mksquashfs", "/bin/cat >/dev/null; exec /bin/sleep 1000"),
        ("while the ext4 is filled", "ext4", "mke2fs", "exec /bin/sleep 1000"),
        ("while it is used", "overlay", "", ""),
    ],
)  # fmt: skip
async def test_killed_builder_leaves_nothing_that_the_next_does_not_mend(
    image: ResolvedImage, tools: Path, tmp_path: Path, point: str, mode: str, tool: str, script: str
) -> None:
    if mode == "ext4" and os.geteuid() != 0:
        pytest.skip("only root can mount")
    told = tmp_path / "told"
    for name in {"mksquashfs", "mke2fs"} - {tool}:
        found = shutil.which(name, path="/usr/bin:/usr/sbin:/sbin")
        if found is not None:
            (tools / name).symlink_to(found)
    (tools / "unshare").symlink_to("/usr/bin/unshare")
    if tool:
        write_tool(tools, tool, _TELL.format(told=told) + script)
    argv = [sys.executable, "-c", _BUILDER, str(tmp_path), str(image.layers[0].path), mode, str(told)]
    builder = subprocess.Popen(argv)  # noqa: ASYNC220 - killed below, at a point that it tells through a file
    try:
        with anyio.fail_after(_WAIT_S):
            while not told.exists():
                await anyio.sleep(0.01)
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    if tool:
        _await_gone(int(told.read_text()))
    assert [loop for loop in read_loops() if str(tmp_path) in loop.backing_file] == []
    assert [entry for entry in read_mounts() if str(tmp_path) in entry.target] == []
    for name in ("mksquashfs", "mke2fs"):
        (tools / name).unlink(missing_ok=True)
        (tools / name).symlink_to(shutil.which(name, path="/usr/bin:/usr/sbin:/sbin") or "/missing")
    cache = ImageCache(tmp_path / "cache")
    if not tool:
        async with open_rootfs(image, cache=cache, mode=RootfsMode.OVERLAY, disk_bytes=GIB) as rootfs:
            assert rootfs.cached
    assert await build(image, cache, mode=RootfsMode(mode)) is None
    assert not any(name.endswith(".partial") for name in left(cache.folder))
    assert not any(entry.in_use for entry in rootfs_cache(cache).entries())


def _await_gone(pid: int) -> None:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} outlived the builder")


async def test_partial_file_is_private(image: ResolvedImage, tools: Path, tmp_path: Path) -> None:
    modes = tmp_path / "modes"
    write_tool(tools, "mksquashfs", f'/usr/bin/stat -c %a "$2" >{modes}; exec /bin/cat >/dev/null')
    await build(image, ImageCache(tmp_path / "cache"))
    assert modes.read_text().strip() == "600"
    assert stat.S_IMODE((tmp_path / "cache/rootfs").stat().st_mode) == 0o700
