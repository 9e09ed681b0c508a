from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalmark.model import OutputLimits, ProtocolError
from metalmark.runner.output_files import CollectedFiles, TarSpool, unpack_outputs

LIMITS = OutputLimits(files_bytes=1000, file_count=3)


def tar_of(*entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def unpack_outputs_of(folder: Path, data: bytes, limits: OutputLimits = LIMITS) -> CollectedFiles:
    (folder / "in.tar").write_bytes(data)
    return unpack_outputs(folder / "in.tar", folder / "files", limits)


def test_content_and_digest_are_kept_under_numbers(tmp_path: Path) -> None:
    found = unpack_outputs_of(tmp_path, tar_of(("out/a", b"A"), ("/b", b"")))
    assert [(file.path, file.size_bytes, file.kept.name) for file in found.files] == [
        ("/out/a", 1, "0"),
        ("/b", 0, "1"),
    ]
    assert found.files[0].sha256 == "559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd"
    assert found.files[0].kept.read_bytes() == b"A"


@pytest.mark.parametrize("name", ["\x1b[2J", "x/" * 300 + "x", "a\nb"])
def test_name_never_decides_where_a_file_goes(tmp_path: Path, name: str) -> None:
    found = unpack_outputs_of(tmp_path, tar_of((name, b"x")))
    assert [file.kept for file in found.files] == [tmp_path / "files/0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "in.tar"]


@pytest.mark.parametrize("name", ["../../escape", "/../escape", "a/../../escape", "x" * 300])
def test_name_that_no_file_has_is_a_protocol_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProtocolError):
        unpack_outputs_of(tmp_path, tar_of((name, b"x")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "in.tar"]


def with_header(block: bytes, **fields: bytes) -> bytes:
    """A header block with some fields replaced and the checksum made right."""
    places = {"size": 124, "type": 156}
    header = bytearray(block)
    for name, value in fields.items():
        header[places[name] : places[name] + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_size_below_zero_is_refused(tmp_path: Path) -> None:
    """A reader that goes back by it reads the same header for ever."""
    data = tar_of(("a", b""))
    negative = with_header(data[:512], size=(2**96 - 512).to_bytes(12, "big"))
    with pytest.raises(ProtocolError):
        unpack_outputs_of(tmp_path, data[:512] + negative + bytes(1024))


def test_extended_header_is_not_read_into_memory_at_any_length(tmp_path: Path) -> None:
    limits = OutputLimits(files_bytes=64 * 1024**2, file_count=3)
    header = with_header(tar_of(("a", b""))[:512], size=b"%011o\0" % (32 * 1024**2), type=b"x")
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            unpack_outputs_of(tmp_path, header + b"x" * (32 * 1024**2), limits)
        before_ends = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert before_ends < 80 * 1024**2, "what the test itself holds, and no more"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_what_is_no_regular_file_is_left_out(tmp_path: Path, kind: bytes) -> None:
    assert unpack_outputs_of(tmp_path, tar_of(("x", b""), kind=kind)).files == ()


def test_bounds_on_count_and_size_leave_files_out_and_say_so(tmp_path: Path) -> None:
    found = unpack_outputs_of(tmp_path, tar_of(*((f"f{n}", b"x") for n in range(5))))
    assert (len(found.files), found.truncated) == (3, True)
    (tmp_path / "second").mkdir()
    found = unpack_outputs_of(tmp_path / "second", tar_of(("big", b"x" * 1001), ("small", b"y")))
    assert ([file.path for file in found.files], found.truncated) == (["/small"], True)


def test_stream_that_was_cut_gives_the_whole_files_before_the_cut(tmp_path: Path) -> None:
    data = tar_of(("a", b"A" * 100), ("b", b"B" * 800))
    found = unpack_outputs_of(tmp_path, data[: data.rindex(b"B") - 300])
    assert ([file.path for file in found.files], found.truncated) == (["/a"], True)
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["0"]


def test_nothing_is_no_files(tmp_path: Path) -> None:
    assert unpack_outputs_of(tmp_path, b"").files == ()


def test_garbage_is_a_protocol_error(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError):
        unpack_outputs_of(tmp_path, b"garbage" * 1000)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 3000), value=st.integers(0, 255))
def test_damaged_stream_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, at: int, value: int) -> None:
    folder = tmp_path_factory.mktemp("tar")
    data = bytearray(tar_of(("a", b"A" * 600), ("b", b"B" * 300), ("ü" * 120, b"C")))
    data[at % len(data)] = value
    try:
        found = unpack_outputs_of(folder, bytes(data))
    except ProtocolError:
        return
    assert len(found.files) <= LIMITS.file_count
    assert sum(file.size_bytes for file in found.files) <= LIMITS.files_bytes


def test_spool_keeps_only_what_the_limits_can_need(tmp_path: Path) -> None:
    spool = TarSpool(tmp_path / "x.tar", LIMITS)
    for _ in range(200):
        spool.take(b"x" * 1000)
    spool.close()
    assert spool.overflowed
    assert spool.path.stat().st_size < 100_000
