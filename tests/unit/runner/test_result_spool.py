from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from metalmark.model import Conflict, NoSpace
from metalmark.runner.end_file import EndKind, EndOfJob, short_error
from metalmark.runner.result_spool import ByteSink, ResultSpool

JOB = UUID("0197c3d4-0000-7000-8000-000000000001")
OTHER = UUID("0197c3d4-0000-7000-8000-000000000002")
GOOD = EndOfJob(kind=EndKind.COMPLETED)


def full(sink: ByteSink) -> None:
    sink.write(b'{"resu')
    raise NoSpace("the disk is full")


def test_end_is_there_after_a_restart(tmp_path: Path) -> None:
    with ResultSpool(tmp_path) as spool:
        spool.begin(JOB, 7)
        kept = spool.keep(JOB, 7, EndOfJob(kind=EndKind.FAILED, error="boom"), lambda sink: sink.write(b"{}"))
        assert kept.document.read_bytes() == b"{}"
        assert (kept.checksum, kept.size_bytes) == (hashlib.sha256(b"{}").hexdigest(), 2)
    with ResultSpool(tmp_path) as spool:
        assert spool.read_back() == (kept,)
        spool.forget(JOB, 7)
        assert spool.read_back() == ()
    assert [path.name for path in tmp_path.iterdir()] == ["in-use"]


@pytest.mark.parametrize("steps", range(5))
def test_cut_while_an_end_is_forgotten_makes_no_other_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    spool = ResultSpool(tmp_path)
    spool.begin(JOB, 3)
    kept = spool.keep(JOB, 3, GOOD, lambda sink: sink.write(b"whole"))
    real, left = Path.unlink, [steps]

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with contextlib.suppress(KeyboardInterrupt):
            spool.forget(JOB, 3)
    assert spool.read_back() == ((kept,) if steps < 3 else ())
    assert list(tmp_path.glob("*.bad")) == []


def test_ends_come_back_in_their_order(tmp_path: Path) -> None:
    with ResultSpool(tmp_path) as spool:
        for place, (job, lease) in enumerate([(OTHER, 2), (JOB, 1), (JOB, 0)]):
            spool.begin(job, lease)
            spool.keep(job, lease, GOOD, lambda sink: sink.write(b"{}"))
            os.utime(tmp_path / f"{job}.{lease}.end", ns=(place, place))
        assert [(end.job, end.lease) for end in spool.read_back()] == [(OTHER, 2), (JOB, 1), (JOB, 0)]


def test_job_that_was_in_hand_has_failed_for_want_of_infrastructure(tmp_path: Path) -> None:
    with ResultSpool(tmp_path) as spool:
        spool.begin(JOB, 3)
    with ResultSpool(tmp_path) as spool:
        (end,) = spool.read_back()
    assert (end.job, end.lease, end.kind, end.infrastructure) == (JOB, 3, EndKind.FAILED, True)
    assert end.error == "the runner ended in the middle of the job"
    assert end.document.read_bytes() == b'{"results":[]}'
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".end", ".json"]


@pytest.mark.parametrize("cut", ["document", "end"])
def test_every_cut_while_an_end_is_kept_leaves_one_end(tmp_path: Path, cut: str) -> None:
    spool = ResultSpool(tmp_path)
    spool.begin(JOB, 3)
    spool.keep(JOB, 3, GOOD, lambda sink: sink.write(b"whole"))
    if cut == "document":
        (tmp_path / f"{JOB}.3.end").unlink()
    (end,) = spool.read_back()
    assert end.kind is (EndKind.FAILED if cut == "document" else EndKind.COMPLETED)
    assert spool.read_back() == (end,)


def test_full_disk_leaves_the_end_without_results(tmp_path: Path) -> None:
    spool = ResultSpool(tmp_path)
    spool.begin(JOB, 1)
    end = spool.keep(JOB, 1, GOOD, full)
    assert (end.kind, end.infrastructure) == (EndKind.FAILED, True)
    assert end.error == "the runner's disk could not keep the results: no space left"
    assert spool.read_back() == (end,)


def test_canceled_job_stays_so_on_a_full_disk(tmp_path: Path) -> None:
    spool = ResultSpool(tmp_path)
    spool.begin(JOB, 1)
    assert spool.keep(JOB, 1, EndOfJob(kind=EndKind.CANCELED), full).kind is EndKind.CANCELED


def test_reserve_that_was_cut_between_its_renames_is_read(tmp_path: Path) -> None:
    spool = ResultSpool(tmp_path)
    spool.begin(JOB, 1)
    (tmp_path / f"{JOB}.1.spare").rename(tmp_path / f"{JOB}.1.json")
    (end,) = spool.read_back()
    assert end.kind is EndKind.FAILED


def test_bound_of_all_documents_counts_like_a_full_disk(tmp_path: Path) -> None:
    spool = ResultSpool(tmp_path, limit_bytes=100)
    for job in (JOB, OTHER):
        spool.begin(job, 1)
    assert spool.keep(JOB, 1, GOOD, lambda sink: sink.write(bytes(80))).kind is EndKind.COMPLETED
    assert spool.keep(OTHER, 1, GOOD, lambda sink: sink.write(bytes(80))).kind is EndKind.FAILED


def test_end_that_is_forgotten_meanwhile_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = ResultSpool(tmp_path)
    spool.keep(OTHER, 1, GOOD, lambda sink: sink.write(b"acknowledged"))
    real = Path.glob

    def glob(path: Path, pattern: str) -> Iterator[Path]:
        found = list(real(path, pattern))
        spool.forget(OTHER, 1)
        return iter(found)

    monkeypatch.setattr(Path, "glob", glob)
    kept = spool.keep(JOB, 1, GOOD, lambda sink: sink.write(b"whole"))
    assert (kept.kind, kept.document.read_bytes()) == (EndKind.COMPLETED, b"whole")


def test_no_room_for_the_reserve_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> int:
        if path.suffix == ".begun":
            raise OSError(28, "No space left on device")
        with path.open("wb") as stream:
            return stream.write(data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(NoSpace):
        ResultSpool(tmp_path).begin(JOB, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["end", "json", "missing"])
def test_what_cannot_be_read_is_set_aside(tmp_path: Path, broken: str) -> None:
    spool = ResultSpool(tmp_path)
    for job in (JOB, OTHER):
        spool.begin(job, 1)
        spool.keep(job, 1, GOOD, lambda sink: sink.write(b'{"results":[]}'))
    if broken == "missing":
        (tmp_path / f"{JOB}.1.json").unlink()
    else:
        (tmp_path / f"{JOB}.1.{broken}").write_bytes(b'{"results":["')
    assert [end.job for end in spool.read_back()] == [OTHER]
    assert (tmp_path / f"{JOB}.1.end.bad").exists()
    assert [end.job for end in spool.read_back()] == [OTHER]


def test_folder_is_one_process_alone(tmp_path: Path) -> None:
    with ResultSpool(tmp_path), pytest.raises(Conflict, match="another process"):
        ResultSpool(tmp_path).__enter__()


@pytest.mark.parametrize("text", ["\0" * 9000, "\U0001f4a5" * 9000, "\udc80" * 9000, "a" * 9000])
def test_every_error_fits_the_reserve(tmp_path: Path, text: str) -> None:
    assert len(short_error(text)) == 4096
    spool = ResultSpool(tmp_path)
    spool.begin(JOB, 1)
    size = (tmp_path / f"{JOB}.1.begun").stat().st_size
    end = spool._keep_in_reserve(JOB, 1, EndOfJob(kind=EndKind.FAILED, error=text))
    assert (tmp_path / f"{JOB}.1.end").stat().st_size <= size
    assert spool.read_back() == (end,)
