"""Files out of the box and into it, as tar streams."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from metalmark.model import StableError
from metalmark.testing.running_agent import RunningAgent, StartAgent
from metalmark.wire import Done, Get, Put

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024
HOSTILE_NAMES = [
    b"plain",
    b"with space",
    b"caf\xc3\xa9",
    b"latin1-\xe9\xff",
    b"new\nline",
    b"-rf *",
    b"[x]",
    b"x" * 255,
    b"quote'\"$(id)",
]


async def get(
    agent: RunningAgent, *patterns: str, workdir: str | Path = "/", max_bytes: int = 64 * MIB, max_files: int = 1000
) -> tuple[dict[str, bytes], Done]:
    """Fetch files; the answer's names are as the archive has them."""
    archive = bytearray()
    request = Get(patterns=patterns, workdir=str(workdir), max_bytes=max_bytes, max_files=max_files)
    with anyio.fail_after(20):
        done = await agent.connection.get(request, archive.extend)
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        for member in tar:
            assert member.isreg(), member.name
            content = tar.extractfile(member)
            assert content is not None
            files[member.name] = content.read()
    return files, done


async def put(agent: RunningAgent, folder: Path, archive: bytes) -> Done:
    """Send an archive."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(archive), 100_000):
            yield archive[start : start + 100_000]

    with anyio.fail_after(20):
        return await agent.connection.put(Put(folder=str(folder)), chunks())


def under(folder: Path, *names: str) -> set[str]:
    """The names that an archive has for files in a folder."""
    return {str(folder / name).lstrip("/") for name in names}


async def test_patterns_names_and_folders(start_agent: StartAgent, tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    for name in ("a.json", "b.json", "c.txt", "deep/d.json", "deep/er/e", "deep/.hidden"):
        (tmp_path / name).write_text(name)
    async with start_agent() as agent:
        files, done = await get(agent, "*.json", workdir=tmp_path)
        assert set(files) == under(tmp_path, "a.json", "b.json")
        assert (done.files, done.transferred_bytes, done.truncated, done.missing) == (2, 12, False, ())
        files, done = await get(agent, "deep", f"{tmp_path}/./c.txt", "c.txt", workdir=tmp_path)
        assert set(files) == under(tmp_path, "deep/d.json", "deep/er/e", "deep/.hidden", "c.txt")
        assert files[str(tmp_path / "deep/er/e").lstrip("/")] == b"deep/er/e"
        files, done = await get(agent, "none", "*.none", "c.txt", "", workdir=tmp_path)
        assert done.missing == ("none", "*.none", "")
        assert set(files) == under(tmp_path, "c.txt")
        files, _ = await get(agent, "deep/../c.txt", workdir=tmp_path)
        assert set(files) == under(tmp_path, "c.txt")


async def test_names_of_any_bytes_come_back_as_they_are(start_agent: StartAgent, tmp_path: Path) -> None:
    for name in HOSTILE_NAMES:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    long = tmp_path / "/".join(["y" * 200] * 10)
    long.parent.mkdir(parents=True)
    long.write_bytes(b"long")
    async with start_agent() as agent:
        files, done = await get(agent, str(tmp_path))
        prefix = os.fsencode(tmp_path).lstrip(b"/") + b"/"
        expected = {os.fsdecode(prefix + name): name for name in HOSTILE_NAMES}
        assert files == {**expected, str(long).lstrip("/"): b"long"}
        # A name that is a pattern as well means itself.
        files, _ = await get(agent, "[x]", workdir=tmp_path)
        assert list(files.values()) == [b"[x]"]
        _, done = await get(agent, os.fsdecode(b"no-\xff"), workdir=tmp_path)
        assert done.missing == (os.fsdecode(b"no-\xff"),)


async def test_bounds_leave_files_out_and_say_so(start_agent: StartAgent, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"f{number}").write_bytes(bytes(1000))
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)
    async with start_agent() as agent:
        files, done = await get(agent, "f*", workdir=tmp_path, max_files=4)
        assert (len(files), done.files, done.truncated) == (4, 4, True)
        files, done = await get(agent, "f*", workdir=tmp_path, max_bytes=2500)
        assert (len(files), done.transferred_bytes, done.truncated) == (2, 2000, True)
        files, done = await get(agent, "huge", "f0", workdir=tmp_path, max_bytes=MIB)
        assert (len(files), done.truncated, done.missing) == (1, True, ())


async def test_what_is_no_regular_file_is_never_opened(start_agent: StartAgent, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "dangling").symlink_to("/no/such")
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    async with start_agent() as agent:
        files, done = await get(agent, "fifo", "zero", "loop", "dangling", "/dev/full", workdir=tmp_path)
        assert files == {}
        assert set(done.missing) == {"fifo", "zero", "loop", "dangling", "/dev/full"}
        files, _ = await get(agent, str(tmp_path))
        assert set(files) == under(tmp_path, "real", "link")
        assert set(files.values()) == {b"x"}


async def test_a_large_file_round_trip(start_agent: StartAgent, tmp_path: Path) -> None:
    content = os.urandom(MIB) * 9 + b"tail"
    (tmp_path / "large").write_bytes(content)
    async with start_agent() as agent:
        files, done = await get(agent, "large", workdir=tmp_path)
        assert next(iter(files.values())) == content
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(tmp_path / "large", "copy")
        done = await put(agent, tmp_path / "new/folder", archive.getvalue())
        assert (done.files, done.transferred_bytes) == (1, len(content))
        assert (tmp_path / "new/folder/copy").read_bytes() == content


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
async def test_unpacking_keeps_what_the_archive_says(start_agent: StartAgent, tmp_path: Path, layout: int) -> None:
    archive = io.BytesIO()
    name = "d/" + ("n" * 90 if layout == tarfile.USTAR_FORMAT else "n" * 200)
    with tarfile.open(fileobj=archive, mode="w", format=layout) as tar:
        folder = tarfile.TarInfo("d")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o750
        tar.addfile(folder)
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = 3, 0o4711, 1_600_000_000
        member.uid, member.gid = (1234, 5678) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        tar.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("d/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../anywhere"
        tar.addfile(link)
        hard = tarfile.TarInfo("hard")
        hard.type, hard.linkname = tarfile.LNKTYPE, name
        tar.addfile(hard)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").write_text("in the way")
    async with start_agent() as agent:
        done = await put(agent, tmp_path, archive.getvalue())
    found = (tmp_path / name).stat()
    assert (tmp_path / name).read_bytes() == b"abc"
    assert (stat.S_IMODE(found.st_mode), int(found.st_mtime), found.st_nlink) == (0o4711, 1_600_000_000, 2)
    assert (found.st_uid, found.st_gid) == (member.uid, member.gid)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    assert (tmp_path / "d/link").readlink() == Path("../../anywhere")
    assert done.files == 1


def one(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"evil") -> bytes:
    """An archive of one entry."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        member.size = len(content) if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../outside", tarfile.REGTYPE, ""),
        ("a/../../outside", tarfile.REGTYPE, ""),
        ("escape/outside", tarfile.REGTYPE, ""),
        ("escape/sub/outside", tarfile.REGTYPE, ""),
        ("hard", tarfile.LNKTYPE, "../secret"),
        ("hard", tarfile.LNKTYPE, "escape/secret"),
        ("device", tarfile.CHRTYPE, ""),
        ("device", tarfile.BLKTYPE, ""),
    ],
)
async def test_an_archive_cannot_leave_its_folder(
    start_agent: StartAgent, tmp_path: Path, name: str, kind: bytes, link: str
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "escape").symlink_to("..")
    (tmp_path / "secret").write_text("secret")
    async with start_agent() as agent:
        with pytest.raises(StableError, match=r"unpack|climbs"):
            await put(agent, inside, one(name, kind, link))
    assert not (tmp_path / "outside").exists()
    assert not (inside / "hard").exists()


async def test_a_link_at_the_last_place_is_replaced_and_not_followed(start_agent: StartAgent, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/name").symlink_to("../victim")
    async with start_agent() as agent:
        await put(agent, tmp_path / "in", one("name"))
    assert (tmp_path / "victim").read_text() == "kept"
    assert (tmp_path / "in/name").read_bytes() == b"evil"


@pytest.mark.parametrize("cut", [100, 512, 700, 1023])
async def test_an_archive_that_is_cut_off_is_refused(start_agent: StartAgent, tmp_path: Path, cut: int) -> None:
    archive = one("name", content=bytes(1000))
    async with start_agent() as agent:
        with pytest.raises(StableError, match="cut off"):
            await put(agent, tmp_path, archive[:cut])
        with pytest.raises(StableError, match="checksum"):
            await put(agent, tmp_path, b"\xff" * 1024)
        with pytest.raises(StableError, match="absolute"):
            await put(agent, Path("relative"), archive)


async def test_no_room_is_told(start_agent: StartAgent) -> None:
    async with start_agent() as agent:
        with pytest.raises(StableError, match="cannot make the folder"):
            await put(agent, Path("/proc/no/such"), one("name"))
