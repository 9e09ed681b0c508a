"""The agent's parsers, built with sanitizers, over generated and damaged input (``guest/fuzz``)."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metalmark.wire import Exec, Get, Setup, encode

GUEST = Path(__file__).parents[3] / "guest"
FRAMES, FIELDS, COMMAND, TAR, USERS, TAR_NAMES = range(6)
EXAMPLES = 20_000 if os.environ.get("METALMARK_SOAK") else 250

RunCase = Callable[[int, bytes], None]


@pytest.fixture(scope="module")
def run_case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunCase]:
    """Run one case; fails with what the sanitizer says."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed (apt-get install gcc)")
    folder = tmp_path_factory.mktemp("fuzz")
    built = subprocess.run(
        ["make", "-C", GUEST, "fuzz", f"FUZZED={folder}/fuzz"],
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout
    log = (folder / "log").open("wb")
    process = subprocess.Popen([folder / "fuzz"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    assert process.stdin is not None
    assert process.stdout is not None

    def run(target: int, data: bytes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        case = bytes([target]) + data
        process.stdin.write(len(case).to_bytes(4, "little") + case)
        process.stdin.flush()
        assert process.stdout.read(1) == b".", (folder / "log").read_text(errors="replace")[-3000:]

    with process, log:
        yield run
        process.stdin.close()
        assert process.wait(20) == 0, (folder / "log").read_text(errors="replace")[-3000:]


def archive(layout: int) -> bytes:
    """A valid archive with one entry of each kind."""
    made = io.BytesIO()
    length = 90 if layout == tarfile.USTAR_FORMAT else 150
    with tarfile.open(fileobj=made, mode="w", format=layout) as tar:
        for name, kind in (
            ("d/" + "n" * length, tarfile.REGTYPE),
            ("l" * length, tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, "t" * length, 5 if kind == tarfile.REGTYPE else 0
            member.mtime = 1.5 if layout == tarfile.PAX_FORMAT else 1
            tar.addfile(member, io.BytesIO(b"12345"))
    return made.getvalue()[: 512 * 20]


SEEDS = {
    FRAMES: [encode(Setup().frame()) + encode(Exec(argv=("true", "x"), env=("A=b",), stream_bytes=1).frame(1))],
    FIELDS: [Get(patterns=("*",), max_bytes=1, max_files=1).frame(1).payload, Setup(hostname="h").frame().payload],
    COMMAND: [Exec(argv=("true", "x"), env=("A=b", "C=d"), user="u", stream_bytes=1).frame(1).payload],
    TAR: [archive(layout) for layout in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)],
    USERS: [b"bob|".ljust(63, b"x") + b"root:x:0:0::/:\nbob:x:5:6::/home:sh\n" * 3 + b"g:x:7:a,bob,c\nh:x:8:\n" * 5],
    TAR_NAMES: [b"n" * 99, b"n" * 101, b"caf\xe9" * 30, "é".encode() * 200],
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, bytes]:
    """A seed with some bytes changed, dropped or doubled; or noise."""
    target = draw(st.sampled_from(list(SEEDS)))
    if draw(st.integers(0, 3)) == 0:
        return target, draw(st.binary(max_size=1500))
    data = bytearray(draw(st.sampled_from(SEEDS[target])))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 2)):
            case 0:
                data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del data[place : place + draw(st.integers(1, 600))]
            case _:
                data[place:place] = data[max(0, place - draw(st.integers(1, 600))) : place]
    if target == TAR:
        mend_checksums(data)
    return target, bytes(data)


def mend_checksums(data: bytearray) -> None:
    """Give every block the checksum of a header, so that damage gets past it."""
    for start in range(0, len(data) - 511, 512):
        header = data[start : start + 512]
        header[148:156] = b" " * 8
        if any(header[257:262]):
            data[start + 148 : start + 156] = b"%06o\0 " % sum(header)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_damaged_input_is_refused_or_read_within_its_bounds(run_case: RunCase, case: tuple[int, bytes]) -> None:
    run_case(*case)


@pytest.mark.parametrize("target", SEEDS)
def test_the_seeds_themselves(run_case: RunCase, target: int) -> None:
    for seed in SEEDS[target]:
        run_case(target, seed)
