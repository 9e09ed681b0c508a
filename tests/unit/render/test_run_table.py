from __future__ import annotations

from metalmark.model import (
    ErrorResult,
    FilesResult,
    HostResult,
    ImageResult,
    IterationResult,
    LimitsResult,
    Outcome,
    Phase,
    PhaseResult,
    RunResult,
    StreamResult,
)
from metalmark.render import run_table

EMPTY = StreamResult(kept_bytes=0, written_bytes=0, truncated=False)


def iteration(number: int = 1, **fields: object) -> IterationResult:
    return IterationResult(
        **{
            "iteration": number, "outcome": Outcome.EXITED, "exit_code": 0, "wall_s": 1.25, "user_s": 0.5,
            "system_s": 0.001, "memory_peak_bytes": 3 * 1024 * 1024, "stdout": EMPTY, "stderr": EMPTY,
            "phases": tuple(PhaseResult(phase=phase, duration_s=0.002) for phase in (Phase.SPAWN, Phase.EXEC)),
            **fields,
        }  # type: ignore[arg-type]
    )  # fmt: skip


def result(*iterations: IterationResult, verdict: str = "measured", reference: str = "app:1") -> RunResult:
    return RunResult(
        metalmark_version="1", started_at="2026-01-01T00:00:00Z", command=("x",), seed=0, verdict=verdict,  # type: ignore[arg-type]
        image=ImageResult(reference=reference, digest="sha256:00", platform="linux/amd64"),
        host=HostResult(
            sandbox="qemu", accelerator="kvm", reason="asked for", rootfs="overlay", kernel="6.1", cpus=(2, 3),
            helper_cpus=(0,), warnings=("it is warm",),
        ),
        limits=LimitsResult(
            vcpus=2, memory_bytes=512 * 1024**2, disk_bytes=1024**3, pids=1, timeout_s=300, network=False
        ),
        phases=(PhaseResult(phase=Phase.PULL, duration_s=0.5), PhaseResult(phase=Phase.ROOTFS, duration_s=0.25)),
        iterations=iterations, exit_code=0,
    )  # fmt: skip


def test_rows_line_up_under_their_heads() -> None:
    lines = run_table(result(iteration(), iteration(10, outcome=Outcome.OUT_OF_MEMORY, exit_code=137))).splitlines()
    at = next(number for number, line in enumerate(lines) if line.lstrip().startswith("#"))
    head, first, tenth = lines[at : at + 3]
    for row, cells in ((first, ["exited", "0"]), (tenth, ["out_of_memory", "137"])):
        assert row.split()[1:3] == cells
    assert head.index("outcome") == first.index("exited") == tenth.index("out_of_memory")
    assert first.rindex("MiB") == tenth.rindex("MiB")
    assert "pull 500 ms, rootfs 250 ms" in "\n".join(lines[:at])


def test_phase_that_did_not_happen_is_a_dash_and_a_clone_has_a_column() -> None:
    plain = run_table(result(iteration()))
    assert "-" in plain.splitlines()[-3]
    clone = PhaseResult(phase=Phase.ROOTFS, duration_s=0.01)
    header = next(line for line in run_table(result(iteration(phases=(clone,)))).splitlines() if line.startswith("#"))
    assert "rootfs" in header


def test_all_there_is_to_know_is_said() -> None:
    cut = StreamResult(kept_bytes=1024, written_bytes=4096, truncated=True)
    told = run_table(
        result(
            iteration(
                stdout=cut, output=FilesResult(missing=("/none",), truncated=True), wall_s=None,
                error=ErrorResult(type="BoxLost", message="it went away", hint="try again"),
            ),
            verdict="emulated",
        )
    )  # fmt: skip
    for part in (
        "emulated", "warning: it is warm", "stdout was truncated to 1.00 KiB of 4.00 KiB",
        "--output /none matched no file",
        "output files were left out", "it went away", "hint: try again",
    ):  # fmt: skip
        assert part in told


def test_control_characters_of_a_guest_do_not_reach_the_terminal() -> None:
    told = run_table(result(iteration(output=FilesResult(missing=("\x1b]0;x\x07",))), reference="a\x1b[2J"))
    assert "\x1b" not in told
    assert "\x07" not in told


def test_run_without_iterations_has_no_empty_table() -> None:
    assert "outcome" not in run_table(result())
