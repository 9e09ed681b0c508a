"""The closing table of a run, as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from metalmark.model import (
    IterationResult,
    Phase,
    PhaseResult,
    RunResult,
    StreamResult,
    format_bytes,
    format_seconds,
    printable,
)

_NOTHING = "-"
_ONCE = (Phase.PULL, Phase.ROOTFS)


def run_table(result: RunResult) -> str:
    """Return what is shown at the end of a run: what ran on what, one row an iteration, and what to know about it."""
    lines = [*_head(result), ""] if result.image or result.host else []
    if result.iterations:
        phases = _phases_of(result.iterations)
        rows = [["#", "outcome", "exit", "wall", "user", "system", "peak", *(phase.value for phase in phases)]]
        rows += [_row(iteration, phases) for iteration in result.iterations]
        lines += [*_aligned(rows), ""]
    lines += _notes(result)
    while lines and not lines[-1]:
        lines.pop()
    # Names come out of images and guests: an escape sequence among them must not reach the terminal.
    return "\n".join(printable(line).replace("\n", "\\n") for line in lines) + "\n"


def _head(result: RunResult) -> Iterable[str]:
    if image := result.image:
        yield f"image    {image.reference} {image.digest} {image.platform}"
    if host := result.host:
        accelerator = f" ({host.accelerator})" if host.accelerator else ""
        yield f"sandbox  {host.sandbox}{accelerator}"
        limits = result.limits
        cpus = f" on CPU {', '.join(map(str, host.cpus))}" if host.cpus else ""
        yield (
            f"limits   {limits.vcpus} vCPU{cpus}, memory {format_bytes(limits.memory_bytes)},"
            f" disk {format_bytes(limits.disk_bytes)}, root {host.rootfs},"
            f" network {'on' if limits.network else 'off'}" + (f", kernel {host.kernel}" if host.kernel else "")
        )
    if result.phases:
        yield "phases   " + ", ".join(f"{span.phase} {format_seconds(span.duration_s)}" for span in result.phases)


def _phases_of(iterations: Sequence[IterationResult]) -> list[Phase]:
    seen = {span.phase for iteration in iterations for span in iteration.phases}
    return [phase for phase in Phase if phase in seen or phase not in _ONCE]


def _row(iteration: IterationResult, phases: Sequence[Phase]) -> list[str]:
    return [
        str(iteration.iteration),
        iteration.outcome.value,
        str(iteration.exit_code),
        *(_seconds(value) for value in (iteration.wall_s, iteration.user_s, iteration.system_s)),
        _NOTHING if iteration.memory_peak_bytes is None else format_bytes(iteration.memory_peak_bytes),
        *(_phase(iteration.phases, phase) for phase in phases),
    ]


def _seconds(value: float | None) -> str:
    return _NOTHING if value is None else format_seconds(value)


def _phase(spans: Sequence[PhaseResult], phase: Phase) -> str:
    return _seconds(next((span.duration_s for span in spans if span.phase is phase), None))


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        # The outcome is a word and reads from the left; everything else is an amount.
        cells = [
            cell.ljust(width) if column == 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _notes(result: RunResult) -> Iterable[str]:
    if result.verdict == "emulated":
        yield "note: the processor was emulated, so these times say nothing about this machine"
    for warning in result.host.warnings if result.host else ():
        yield f"warning: {warning}"
    for iteration in result.iterations:
        yield from _iteration_notes(iteration)


def _iteration_notes(iteration: IterationResult) -> Iterable[str]:
    where = f"iteration {iteration.iteration}"
    for name, stream in (("stdout", iteration.stdout), ("stderr", iteration.stderr)):
        if stream.truncated:
            yield f"{where}: {name} was truncated to {_kept(stream)}"
    if iteration.output.truncated:
        yield f"{where}: output files were left out, for a bound on their size or number was met"
    for pattern in iteration.output.missing:
        yield f"{where}: --output {pattern} matched no file"
    if iteration.error is not None:
        yield f"{where}: {iteration.error.message}"
        if iteration.error.hint:
            yield f"  hint: {iteration.error.hint}"


def _kept(stream: StreamResult) -> str:
    return f"{format_bytes(stream.kept_bytes)} of {format_bytes(stream.written_bytes)}"
