from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from metalmark.model import ImageNotFound, InputError, MetalmarkError, NotAnImage
from metalmark.oci import SourceKind, parse_source
from metalmark.testing.images import FakeImage, tar_of, write_layout


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", FakeImage())


def test_a_layout_is_told_by_looking_and_by_prefix(layout: Path) -> None:
    for text in (str(layout), f"oci:{layout}"):
        source = parse_source(text)
        assert (source.kind, source.location, source.selector) == (SourceKind.OCI, str(layout), "")


def test_what_follows_the_path_selects_an_image(layout: Path) -> None:
    assert parse_source(f"oci:{layout}:v1").selector == "v1"
    assert parse_source(f"{layout}:v1").selector == "v1"
    assert parse_source(f"oci:{layout}@sha256:{'0' * 64}").selector == f"@sha256:{'0' * 64}"


def test_a_path_with_a_colon_is_a_path_first(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "app:v1", FakeImage())
    assert parse_source(str(folder)).location == str(folder)
    assert parse_source(f"oci:{folder}:v2").selector == "v2"


def test_a_layout_without_its_version_file_is_still_a_layout(layout: Path) -> None:
    (layout / "oci-layout").unlink()
    assert parse_source(str(layout)).kind is SourceKind.OCI


def test_docker_archives_are_told_by_their_manifest(tmp_path: Path) -> None:
    packed = tmp_path / "saved.tar"
    packed.write_bytes(tar_of({"manifest.json": b"[]"}))
    unpacked = tmp_path / "saved"
    unpacked.mkdir()
    (unpacked / "manifest.json").write_text("[]")
    for path in (packed, unpacked):
        assert parse_source(str(path)).kind is SourceKind.DOCKER_ARCHIVE


@pytest.mark.parametrize("packer", [bytes, gzip.compress])
def test_an_archive_with_an_index_is_a_layout_even_with_dockers_manifest(tmp_path: Path, packer: object) -> None:
    path = tmp_path / "both.tar"
    tar = tar_of({"manifest.json": b"[]", "./index.json": b"{}", "oci-layout": b"{}"})
    path.write_bytes(packer(tar))  # type: ignore[operator]
    assert parse_source(str(path)).kind is SourceKind.OCI_ARCHIVE
    assert parse_source(f"docker-archive:{path}").kind is SourceKind.DOCKER_ARCHIVE


def test_a_wrong_prefix_is_told_with_the_right_one(layout: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAnImage, match="folder") as caught:
        parse_source(f"oci-archive:{layout}")
    assert caught.value.hint.endswith(f"oci:{layout}")
    with pytest.raises(NotAnImage) as wrong:
        parse_source(f"docker-archive:{layout}")
    assert f"oci:{layout}" in wrong.value.hint


def test_what_is_there_but_no_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotAnImage, match=r"index\.json"):
        parse_source(str(tmp_path))
    text = tmp_path / "notes.txt"
    text.write_text("hello " * 200)
    with pytest.raises(NotAnImage, match="not a tar file"):
        parse_source(str(text))
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(NotAnImage):
        parse_source(str(tmp_path / "empty"))


@pytest.mark.parametrize("text", ["/no/such/image", "./no-such", "oci:/no/such", "docker-archive:no.tar", "oci:x:y"])
def test_a_path_that_leads_nowhere_is_not_found(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageNotFound):
        parse_source(text)


def test_a_name_that_is_neither_path_nor_reference_says_both() -> None:
    with pytest.raises(InputError, match="no such file or folder") as caught:
        parse_source("alpine:3.20")
    assert "docker.io/alpine:3.20" in caught.value.hint


def test_a_prefix_alone_is_told_from_a_missing_registry() -> None:
    with pytest.raises(InputError, match="after the prefix"):
        parse_source("docker://")


def test_a_missing_path_is_named_and_quoted_in_its_hint() -> None:
    with pytest.raises(ImageNotFound, match=r"no file or folder \./no such") as caught:
        parse_source("./no such")
    assert caught.value.hint.endswith("ls -d './no such'")


@pytest.mark.parametrize("text", ["", "  ", "a\0b", "docker-daemon:x:y", "containers-storage:x", "dir:/tmp", "oci:"])
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_source(text)


def test_references_are_registries() -> None:
    for text in ("docker://h.io/a:1", "h.io/a:1"):
        source = parse_source(text)
        assert (source.kind, source.location) == (SourceKind.REGISTRY, "h.io/a:1")
    assert str(parse_source("h.io/a")) == "docker://h.io/a:latest"


def test_a_named_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAnImage):
        parse_source(str(tmp_path / "pipe"))


def test_a_header_that_claims_gigabytes_is_refused_without_reading_them(tmp_path: Path) -> None:
    info = tarfile.TarInfo("PaxHeaders/x")
    info.type, info.size = tarfile.XHDTYPE, 7 * 1024**3
    for name, packer in (("plain.tar", bytes), ("packed.tar.gz", gzip.compress)):
        path = tmp_path / name
        path.write_bytes(packer(info.tobuf(tarfile.USTAR_FORMAT) + bytes(4096)))  # type: ignore[operator]
        with pytest.raises(NotAnImage, match="claims"):
            parse_source(str(path))


def test_a_packed_bomb_ends_early(tmp_path: Path) -> None:
    info = tarfile.TarInfo("zeros")
    info.size = 1 << 40
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as packer:
        packer.write(info.tobuf(tarfile.GNU_FORMAT))
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(stream.getvalue())
    with pytest.raises(MetalmarkError, match="claims to reach"):
        parse_source(str(path))
