from __future__ import annotations

import io
import json
import os
import socket
import stat
import tarfile
from pathlib import Path

import pytest

from metalmark.model import Digest, ImageConfig, InputError, NoPermission, Platform
from metalmark.oci import Compression, ImageCache, PackRequest, PackSource, pack, parse_source, pull

AMD64 = Platform("linux", "amd64")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "bin/run").write_bytes(b"#!/bin/sh\n")
    (root / "bin/run").chmod(0o755)
    (root / "bin/also").hardlink_to(root / "bin/run")
    (root / "link").symlink_to("/bin/run")
    (root / "empty").mkdir()
    os.mkfifo(root / "pipe")
    (root / ("n" * 200)).write_bytes(b"long")
    os.close(os.open(os.fsencode(root) + b"/raw\xff", os.O_CREAT | os.O_WRONLY, 0o640))
    return root


def request(*sources: str | Path, **options: object) -> PackRequest:
    parsed = tuple(PackSource.parse(str(source)) for source in sources)
    return PackRequest(sources=parsed, platform=AMD64, **options)  # type: ignore[arg-type]


def layer_of(layout: Path, digest: Digest) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO((layout / "blobs/sha256" / digest.hex).read_bytes()))


def members(layout: Path, digest: Digest) -> dict[str, tarfile.TarInfo]:
    with layer_of(layout, digest) as archive:
        return {member.name: member for member in archive}


def test_everything_is_in_with_nothing_of_this_machine(tree: Path, tmp_path: Path) -> None:
    packed = pack(request(tree), tmp_path / "out", archive=False)
    found = members(packed.path, packed.layer_digest)
    assert list(found) == sorted(found, key=os.fsencode)
    assert {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in found.values()} == {
        (0, 0, "", "", 0)
    }
    assert found["bin/run"].islnk()
    assert found["bin/run"].linkname == "bin/also"
    assert found["bin/also"].mode == 0o755
    assert found["link"].linkname == "/bin/run"
    assert found["empty"].isdir()
    assert found["pipe"].isfifo()
    assert found["n" * 200].size == 4
    assert os.fsencode(next(name for name in found if name.startswith("raw"))) == b"raw\xff"
    assert packed.entries == len(found)


@pytest.mark.parametrize("compression", Compression)
def test_the_same_files_give_the_same_digest_whenever_and_wherever(
    tree: Path, tmp_path: Path, compression: Compression
) -> None:
    first = pack(request(tree, compression=compression), tmp_path / "one", archive=False)
    moved = tmp_path / "elsewhere"
    tree.rename(moved)
    for path in moved.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1, 1))
    second = pack(request(moved, compression=compression), tmp_path / "deep/er/two", archive=False)
    archives = [pack(request(moved, compression=compression), tmp_path / name, archive=True) for name in ("a", "b")]
    assert {first.digest, second.digest, *(packed.digest for packed in archives)} == {first.digest}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_changed_file_mode_or_name_changes_the_digest(tree: Path, tmp_path: Path) -> None:
    digests = {pack(request(tree), tmp_path / "0", archive=False).digest}
    (tree / "bin/run").chmod(0o700)
    digests.add(pack(request(tree), tmp_path / "1", archive=False).digest)
    (tree / "bin/run").write_bytes(b"#!/bin/sh\n#")
    digests.add(pack(request(tree), tmp_path / "2", archive=False).digest)
    (tree / "empty").rename(tree / "empty2")
    digests.add(pack(request(tree), tmp_path / "3", archive=False).digest)
    digests.add(pack(request(tree, config=ImageConfig(cmd=("x",))), tmp_path / "4", archive=False).digest)
    assert len(digests) == 5


def test_files_go_where_they_are_sent(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/d").write_bytes(b"2")
    sent = [f"{tmp_path}/tool{target}" for target in ("", ":/opt/x/renamed", ":/usr/bin/")]
    packed = pack(request(*sent, f"{tmp_path}/data:/d"), tmp_path / "out", archive=False)
    names = list(members(packed.path, packed.layer_digest))
    assert names == ["d", "d/d", "opt", "opt/x", "opt/x/renamed", "tool", "usr", "usr/bin", "usr/bin/tool"]


def test_a_later_source_replaces_an_earlier_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same").write_bytes(name.encode() * 3)
    packed = pack(request(tmp_path / "a", tmp_path / "b"), tmp_path / "out", archive=False)
    with layer_of(packed.path, packed.layer_digest) as archive:
        content = archive.extractfile("same")
        assert content is not None
        assert content.read() == b"bbb"


@pytest.mark.parametrize("text", ["no-such", "no-such:/x", "{tree}:relative", "{tree}:/a/../../b"])
def test_sources_that_cannot_be_used_are_refused(tree: Path, text: str) -> None:
    with pytest.raises(InputError):
        PackSource.parse(text.format(tree=tree))


def test_names_that_delete_and_sockets_are_refused(tree: Path, tmp_path: Path) -> None:
    (tree / ".wh.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"\.wh\."):
        pack(request(tree), tmp_path / "out", archive=False)
    (tree / ".wh.bin").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "s"))
        with pytest.raises(InputError, match="socket"):
            pack(request(tree), tmp_path / "out", archive=False)
    assert not (tmp_path / "out").exists()


def test_a_file_cannot_also_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(InputError, match="no folder"):
        pack(request(f"{tmp_path}/f:/a", f"{tmp_path}/f:/a/b"), tmp_path / "out", archive=False)


def test_what_may_not_be_read_is_told(tree: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tree / "bin/run").chmod(0)
    with pytest.raises(NoPermission, match="bin/run"):
        pack(request(tree), tmp_path / "out", archive=False)


def test_a_layout_keeps_other_images_and_gives_a_tag_to_the_last(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(request(tree, tag="a"), out, archive=False)
    pack(request(tree, tag="b"), out, archive=False)
    last = pack(request(tree, tag="a", config=ImageConfig(cmd=("x",))), out, archive=False)
    entries = json.loads((out / "index.json").read_text())["manifests"]
    tags = {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in entries}
    assert set(tags) == {"a", "b"}
    assert tags["a"] == str(last.digest)


def test_a_folder_that_is_no_layout_is_left_alone(tree: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in tree.iterdir())
    with pytest.raises(InputError, match="not an OCI layout"):
        pack(request(tree), tree, archive=False)
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(InputError, match="not an OCI layout"):
        pack(request(tree), tmp_path / "file", archive=False)
    with pytest.raises(InputError, match="folder"):
        pack(request(tree), tree, archive=True)
    assert sorted(path.name for path in tree.iterdir()) == before
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert not list(tmp_path.glob(".pack*"))


@pytest.mark.anyio
async def test_what_was_packed_can_be_pulled_in_every_form(tree: Path, tmp_path: Path) -> None:
    config = ImageConfig(
        entrypoint=("/bin/run",), cmd=("a b",), env=("A=1",), workdir="/empty", user="1:2", labels={"k": "v"}
    )
    pack(request(tree, config=config), tmp_path / "out", archive=False)
    pack(request(tree, config=config), tmp_path / "out.tar", archive=True)
    with ImageCache(tmp_path / "cache") as cache:
        for text in ("{}/out", "oci-archive:{}/out.tar", "docker-archive:{}/out.tar"):
            found = await pull(parse_source(text.format(tmp_path)), cache=cache, platform=AMD64)
            assert found.config == config
            assert len(found.layers) == 1


def test_capabilities_come_along(tree: Path, tmp_path: Path) -> None:
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    try:
        os.setxattr(tree / "bin/run", "security.capability", value)
    except OSError:
        pytest.skip("setting file capabilities needs root and a file system that has them")
    packed = pack(request(tree), tmp_path / "out", archive=False)
    headers = members(packed.path, packed.layer_digest)["bin/also"].pax_headers
    assert headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == value


def test_devices_and_special_bits_come_along(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "setuid").write_bytes(b"")
    (root / "setuid").chmod(0o4755)
    try:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making device nodes needs root")
    packed = pack(request(root), tmp_path / "out", archive=False)
    found = members(packed.path, packed.layer_digest)
    assert found["setuid"].mode == 0o4755
    assert (found["null"].ischr(), found["null"].devmajor, found["null"].devminor) == (True, 1, 3)
