"""The root file system of an image is built once, is the same each time, and stays while it is used."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from metalmark.model import GIB, BoxTooSmall, Digest, LayerRefused, NoPermission, Progress, RootfsMode
from metalmark.oci import ImageCache, ResolvedImage, Rootfs, RootfsCache, open_rootfs
from metalmark.oci.ext4 import make_ext4
from metalmark.oci.rootfs_build import build_rootfs
from metalmark.system import MountFlag, Namespace, NamespaceThread, attached, mount, published, read_loops
from metalmark.testing.layers import END, entry, folder, hardlink, image_of, layer_blob, pax, symlink
from metalmark.testing.trees import Tree, read_tree

pytestmark = pytest.mark.anyio
LOWER = folder(b"./", mode=0o750, mtime=5) + folder(b"etc") + entry(b"etc/name", b"lower", uid=7, mtime=9) + END
UPPER = entry(b"etc/name", b"upper" * 60000, uid=8, gid=9, mode=0o4755) + symlink(b"l", b"etc/name") + END
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="squashfs is mounted only as root")


@pytest.fixture
def image(tmp_path: Path) -> ResolvedImage:
    return image_of([layer_blob(tmp_path, LOWER), layer_blob(tmp_path, UPPER)])


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "cache")


@asynccontextmanager
async def opened(image: ResolvedImage, cache: ImageCache, **more: object) -> AsyncIterator[Rootfs]:
    fields = {"mode": RootfsMode.OVERLAY, "disk_bytes": GIB, **more}
    async with open_rootfs(image, cache=cache, **fields) as rootfs:  # type: ignore[arg-type]  # passed through
        yield rootfs


def names(cache: ImageCache) -> set[str]:
    return {path.name for path in (cache.folder / "rootfs").iterdir() if path.is_file()} - {"format-version"}


async def _listed(image: Path) -> str:
    return (await anyio.run_process(["unsquashfs", "-lln", "-UTC", str(image)])).stdout.decode()


async def test_second_opening_builds_nothing(image: ResolvedImage, cache: ImageCache) -> None:
    told: list[Progress] = []
    async with opened(image, cache, progress=told.append) as first:
        assert not first.cached
        assert told[-1].finished
        assert told[-1].done == image.size_bytes
        before = first.path.stat()
    async with opened(image, cache) as second:
        assert second.cached
        assert second.path.stat().st_ino == before.st_ino
        assert second.path.stat().st_mode & 0o777 == 0o400
    assert names(cache) == {first.path.name}


async def test_same_image_gives_the_same_bytes(image: ResolvedImage, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        async with opened(image, ImageCache(tmp_path / name)) as rootfs:
            made.append(rootfs.path.read_bytes())
    assert made[0] == made[1]


async def test_root_folder_is_as_the_layers_have_it(image: ResolvedImage, cache: ImageCache) -> None:
    async with opened(image, cache) as rootfs:
        listing = (await _listed(rootfs.path)).splitlines()
    assert "drwxr-x--- 0/0" in listing[0]
    assert "1970-01-01 00:00 squashfs-root" in listing[0]
    assert any(line.startswith("-rwsr-xr-x 8/9") for line in listing)


@ROOT_ONLY
@pytest.mark.parametrize("others", [2, 2100])
async def test_root_folder_of_an_owner_that_nothing_else_has(cache: ImageCache, tmp_path: Path, others: int) -> None:
    owned = b"".join(entry(b"f%d" % n, uid=100 + n) for n in range(others))
    attributes = b"".join(pax({b"SCHILY.xattr.user.n": b"%d" % n}) + entry(b"x%d" % n, b"c") for n in range(600))
    for number, rest in enumerate((owned, owned + attributes)):
        layer = folder(b"./", mode=0o700, uid=5, gid=6) + rest + END
        async with opened(image_of([layer_blob(tmp_path, layer)]), cache) as rootfs:
            assert (await _listed(rootfs.path)).startswith("drwx------ 5/6")
            tree = _mounted_tree(rootfs.path, "squashfs", str(number))
        assert [tree[b"f%d" % n].uid for n in range(others)] == list(range(100, 100 + others))
        if number:
            assert all(tree[b"x%d" % n].xattrs == ((b"user.n", b"%d" % n),) for n in range(600))


async def test_root_folder_of_another_owner(cache: ImageCache, tmp_path: Path) -> None:
    layer = folder(b"./", uid=5, gid=6) + entry(b"a", uid=6, gid=5) + END
    async with opened(image_of([layer_blob(tmp_path, layer)]), cache) as rootfs:
        listing = await _listed(rootfs.path)
    assert listing.startswith("drwxr-xr-x 5/6")


async def test_root_inode_across_a_border_of_metadata_blocks(cache: ImageCache, tmp_path: Path) -> None:
    # Squashfs keeps inodes in blocks of 8 KiB; with one file more at a time the root's comes to lie across a border.
    for count in range(250, 262):
        layer = folder(b"./", mode=0o711, mtime=77) + b"".join(entry(b"%d" % n) for n in range(count)) + END
        async with opened(image_of([layer_blob(tmp_path, layer)]), cache) as rootfs:
            listing = await _listed(rootfs.path)
        assert listing.startswith("drwx--x--x 0/0")
        assert listing.count("\n-rw-r--r-- 0/0") == count


async def test_several_at_once_build_once(image: ResolvedImage, cache: ImageCache) -> None:
    found: list[bool] = []

    async def use() -> None:
        async with opened(image, cache) as rootfs:
            found.append(rootfs.cached)
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(use)
    assert sorted(found) == [False, True, True, True]


_PROCESS = """
import sys, anyio
from pathlib import Path
from metalmark.oci import RootfsCache
async def build(target):
    with open(sys.argv[2], "a") as log: log.write("x")
    await anyio.sleep(0.2)
    target.write_bytes(b"built")
async def main():
    async with RootfsCache(Path(sys.argv[1])).held("a.squashfs", build, max_bytes=None) as (path, _):
        assert path.read_bytes() == b"built"
anyio.run(main)
"""


async def test_several_processes_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    argv = [sys.executable, "-c", _PROCESS, str(tmp_path / "cache"), str(log)]
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(anyio.run_process, argv)
    assert log.read_text() == "x"


async def _fill(target: Path) -> None:
    target.write_bytes(b"x" * 100_000)


async def test_clean_up_takes_the_least_recently_used_but_nothing_in_use(tmp_path: Path) -> None:
    cache = RootfsCache(tmp_path)
    for number in range(4):
        async with cache.held(f"{number}.squashfs", _fill, max_bytes=None) as (path, _):
            os.utime(path, (number, number))
    for number in range(4):
        os.utime(tmp_path / f"{number}.squashfs", (number, number))
    async with cache.held("0.squashfs", _fill, max_bytes=None):
        os.utime(tmp_path / "0.squashfs", (0, 0))
        size = cache.entries()[0].size_bytes
        assert [entry.in_use for entry in cache.entries()] == [True, False, False, False]
        gone = cache.collect(2 * size)
    assert [entry.path.name for entry in gone] == ["1.squashfs", "2.squashfs"]
    assert {entry.path.name for entry in cache.entries()} == {"0.squashfs", "3.squashfs"}
    async with cache.held("4.squashfs", _fill, max_bytes=0) as (path, _):
        assert path.exists()
        assert [entry.path.name for entry in cache.entries()] == ["4.squashfs"]


async def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    async def fail(target: Path) -> None:
        await _fill(target)
        raise LayerRefused("layer", "entry", "why")

    with pytest.raises(LayerRefused):
        async with RootfsCache(tmp_path).held("a.squashfs", fail, max_bytes=None):
            pass
    assert [path for path in tmp_path.iterdir() if path.suffix in (".partial", ".squashfs")] == []


async def test_partial_of_a_live_builder_is_not_swept(tmp_path: Path) -> None:
    cache = RootfsCache(tmp_path)

    async def build(target: Path) -> None:
        cache.sweep()
        assert target.exists()
        await _fill(target)

    (tmp_path / "b.squashfs.0000.partial").touch()
    # Of another process that comes to the same new folder.
    with published(tmp_path / "format-version") as stream:
        stream.write(b"1\n")
        async with cache.held("a.squashfs", build, max_bytes=None):
            assert not (tmp_path / "b.squashfs.0000.partial").exists()


async def test_ordinary_user_builds_the_same(image: ResolvedImage, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can try as somebody else")
    script = (
        "import sys,anyio\nfrom pathlib import Path\nfrom metalmark.oci.rootfs_build import build_rootfs\n"
        "from metalmark.testing.layers import layer_blob\nfolder=Path(sys.argv[1])\n"
        "target=folder/'image'; target.touch()\n"
        "blobs=[layer_blob(folder,Path(p).read_bytes()) for p in sys.argv[2:]]\n"
        "anyio.run(lambda: build_rootfs(blobs,target))\n"
    )
    with _shared_folder() as shared:
        for index, layer in enumerate(image.layers):
            (shared / str(index)).write_bytes(layer.path.read_bytes())
        os.chown(shared, 65534, 65534)
        for python in (sys.executable, "/usr/bin/python3"):
            argv = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", python, "-c"]
            known = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.defpath}
            found = await anyio.run_process([*argv, "import metalmark.oci"], check=False, env=known)
            if found.returncode == 0:
                break
        else:
            pytest.skip("an ordinary user cannot read this installation")
        layers = [str(shared / str(index)) for index in range(len(image.layers))]
        await anyio.run_process([*argv, script, str(shared), *layers], cwd="/", env=known)
        mine = tmp_path / "mine"
        mine.touch()
        await build_rootfs(image.layers, mine)
        # Byte for byte but for mksquashfs's own user, which stays in the table of owners unused.
        assert await _listed(shared / "image") == await _listed(mine)


class _shared_folder:  # noqa: N801 - reads as the context that it is
    def __enter__(self) -> Path:
        import tempfile

        self.path = Path(tempfile.mkdtemp(dir="/var/tmp"))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)


@ROOT_ONLY
async def test_ext4_holds_what_the_squashfs_holds(cache: ImageCache, tmp_path: Path) -> None:
    attributes = {b"SCHILY.xattr.user.a": b"1", b"SCHILY.xattr.security.capability": b"\1\0\0\2" + bytes(16)}
    layer = LOWER[:-1024] + pax(attributes) + entry(b"etc/x", b"x" * 5000, mode=0o4755, uid=70000)
    layer += hardlink(b"y", b"etc/x") + symlink(b"s", b"q" * 200) + END
    image = image_of([layer_blob(tmp_path, layer)])
    loops = read_loops()
    async with opened(image, cache) as base, opened(image, cache, mode=RootfsMode.EXT4) as writable:
        assert writable.path.suffix == ".ext4"
        trees = [_mounted_tree(base.path, "squashfs"), _mounted_tree(writable.path, "ext4")]
    assert trees[1].pop(b"lost+found")
    assert trees[0] == trees[1]
    await anyio.run_process(["e2fsck", "-fn", str(writable.path)])
    assert [loop for loop in read_loops() if str(tmp_path) in loop.backing_file] == []
    assert len(read_loops()) <= len(loops) + 8
    async with opened(image, cache, mode=RootfsMode.EXT4) as again:
        assert again.cached


def _mounted_tree(image: Path, kind: str, name: str = "") -> Tree:
    place = image.parent / f"look-{kind}{name}"
    place.mkdir()

    def look() -> Tree:
        with attached(image, read_only=True) as device:
            mount(str(device), place, fs_type=kind, flags=MountFlag.READ_ONLY)
        return read_tree(place)

    with NamespaceThread(Namespace.MOUNT) as thread:
        return thread.call(look)


@ROOT_ONLY
async def test_ext4_larger_than_the_disk_is_told(image: ResolvedImage, cache: ImageCache) -> None:
    with pytest.raises(BoxTooSmall, match="the image's files need"):
        async with opened(image, cache, mode=RootfsMode.EXT4, disk_bytes=1024):
            pass


@ROOT_ONLY
async def test_ext4_of_many_small_files(cache: ImageCache, tmp_path: Path) -> None:
    layer = b"".join(entry(b"d%d/%d" % (n % 7, n), b"x") for n in range(1500)) + END
    async with opened(image_of([layer_blob(tmp_path, layer)]), cache, mode=RootfsMode.EXT4) as rootfs:
        assert rootfs.path.stat().st_size < 64 * 1024 * 1024


async def test_ext4_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoPermission, match="needs root") as caught:
        await make_ext4(tmp_path / "image.squashfs", tmp_path / "target", digest=Digest.of(b""))
    assert "overlay" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
