from __future__ import annotations

import base64
import io
import json
import tracemalloc
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runner.assignments import assignment

from metalmark.model import (
    FileResult,
    FilesResult,
    HostResult,
    IterationResult,
    LimitsResult,
    Outcome,
    Phase,
    PhaseResult,
    RunResult,
    StreamResult,
)
from metalmark.runner import CollectedFile, CollectedFiles, IterationRecord, RunRecord
from metalmark.runner.end_document import build_name, write_document
from metalmark.wire import JobOutput

LIMITS = LimitsResult(vcpus=1, memory_bytes=1, disk_bytes=1, pids=1, timeout_s=1, network=False)
HOST = HostResult(
    sandbox="qemu", accelerator="tcg", reason="asked for", rootfs="overlay", kernel="6.1", cpus=(1,), helper_cpus=(0,)
)


def iteration(folder: Path, stdout: bytes = b"", stderr: bytes = b"", **files: bytes) -> IterationRecord:
    folder.mkdir(parents=True)
    (folder / "stdout").write_bytes(stdout)
    (folder / "stderr").write_bytes(stderr)
    kept = []
    for number, (name, data) in enumerate(files.items()):
        (folder / str(number)).write_bytes(data)
        kept.append(
            CollectedFile(path=f"/out/{name}", kept=folder / str(number), size_bytes=len(data), sha256="0" * 64)
        )
    empty = StreamResult(kept_bytes=0, written_bytes=0, truncated=False)
    result = IterationResult(
        iteration=1,
        outcome=Outcome.EXITED,
        exit_code=0,
        wall_s=1.23456,
        stdout=empty,
        stderr=empty,
        output=FilesResult(files=tuple(FileResult(path=f.path, size_bytes=1, sha256="") for f in kept)),
        phases=(PhaseResult(phase=Phase.EXEC, duration_s=1.5),),
    )
    return IterationRecord(result=result, folder=folder, collected=CollectedFiles(files=tuple(kept)), facts=None)


def record(*iterations: IterationRecord, host: HostResult | None = None) -> RunRecord:
    result = RunResult(
        metalmark_version="1.2", started_at="", image=None, command=(), host=host, limits=LIMITS, seed=0,
        verdict="emulated", iterations=tuple(one.result for one in iterations), exit_code=0,
        phases=(PhaseResult(phase=Phase.PULL, duration_s=0.5),),
    )  # fmt: skip
    return RunRecord(result=result, iterations=iterations)


def document(run: RunRecord, *, error: str | None = None, **config: object) -> JobOutput:
    sink = io.BytesIO()
    write_document(run, assignment(**config).config, error, sink)
    json.loads(sink.getvalue())
    return JobOutput.model_validate_json(sink.getvalue())


def test_document_has_all_that_came_out(tmp_path: Path) -> None:
    run = record(
        iteration(tmp_path / "1", b'say "hi"\n\0\xc3\xa9', b"\xff", good=b"{}", bad=b"\xfe"),
        iteration(tmp_path / "2"),
        host=HOST,
    )
    found = document(run, error="it failed")
    first, second = found.results
    assert first.stdout == 'say "hi"\n\0é'
    assert first.stderr is None
    assert first.stderr_base64 == base64.b64encode(b"\xff").decode()
    assert first.output == {"/out/good": "{}"}
    assert first.output_base64 == {"/out/bad": base64.b64encode(b"\xfe").decode()}
    assert (first.outcome, first.wall_s, first.phases) == (Outcome.EXITED, 1.23456, {Phase.EXEC: 1.5})
    assert (second.stdout, second.output) == (None, None)
    assert found.error == "it failed"
    assert found.host is not None
    assert (found.host.sandbox, found.host.verdict, found.host.metalmark_version) == ("qemu", "emulated", "1.2")
    assert found.phases == {Phase.PULL: 0.5}


def test_run_that_never_began_has_a_document_too() -> None:
    assert document(record()).results == ()


def test_metrics_take_the_place_of_files(tmp_path: Path) -> None:
    run = record(iteration(tmp_path / "1", b"printed", binary=b"\xff" * 7))
    (found,) = document(run, build_time=True, file_size=True, cmd=("make", "all")).results
    assert found.output is not None
    assert list(found.output) == ["\0bencher"]
    assert json.loads(found.output["\0bencher"]) == {
        "make all": {"build-time": {"value": 1.23}},
        "binary": {"file-size": {"value": 7}},
    }
    assert found.output_base64 is None
    assert found.stdout == "printed"


def test_no_files_found_leaves_standard_output_to_count(tmp_path: Path) -> None:
    (found,) = document(record(iteration(tmp_path / "1", b"x")), file_size=True).results
    assert found.output is None


def test_names_of_builds() -> None:
    plain = assignment().config
    assert build_name(assignment(entrypoint=("make",), cmd=("-j", "2")).config) == "make -j 2"
    assert build_name(assignment(image="app:v1").config) == "app:v1"
    assert build_name(plain) == f"{plain.project}@{plain.digest}"


@settings(max_examples=40)
@given(text=st.text(min_size=1, max_size=40), at=st.integers(0, 6))
def test_characters_may_lie_across_blocks(tmp_path_factory: object, text: str, at: int) -> None:
    folder = tmp_path_factory.mktemp("run") / "1"  # type: ignore[attr-defined]
    data = b"a" * (48 * 1024 - at) + text.encode("utf-8")
    (found,) = document(record(iteration(folder, data, b"\xff" + data))).results
    assert found.stdout == data.decode()
    assert found.stderr_base64 is not None
    assert base64.b64decode(found.stderr_base64) == b"\xff" + data


def test_memory_does_not_grow_with_the_output(tmp_path: Path) -> None:
    class Nowhere:
        def write(self, data: bytes, /) -> int:
            return len(data)

    run = record(iteration(tmp_path / "1", b"x\n" * 4_000_000, b"\xff" * 4_000_000, file=b"y" * 4_000_000))
    tracemalloc.start()
    try:
        write_document(run, assignment().config, None, Nowhere())
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
