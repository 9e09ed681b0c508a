"""The closing table of a job that a server's runner did, as plain text."""

from __future__ import annotations

from collections.abc import Iterable

from metalmark.model import JobEnd, format_seconds, printable

_NOTHING = "-"


def job_table(end: JobEnd) -> str:
    """Return what is shown at the end of a job: where it ran, a row an iteration, and what to know about it."""
    lines = [*_head(end), *_rows(end), *_notes(end)]
    # Names come out of images and guests: an escape sequence among them must not reach the terminal.
    return "".join(printable(line).replace("\n", "\\n") + "\n" for line in lines)


def _head(end: JobEnd) -> Iterable[str]:
    yield f"status   {end.status}"
    if end.host:
        accelerator = end.host.get("accelerator", "")
        yield f"sandbox  {end.host.get('sandbox', _NOTHING)}{f' ({accelerator})' if accelerator else ''}"


def _rows(end: JobEnd) -> Iterable[str]:
    if not end.iterations:
        return
    width = max(len("outcome"), *(len(row.outcome) for row in end.iterations))
    first = max(1, len(str(len(end.iterations))))
    yield ""
    yield f"{'#':>{first}}  {'outcome':<{width}}  exit  wall"
    for row in end.iterations:
        wall = _NOTHING if row.wall_s is None else format_seconds(row.wall_s)
        yield f"{row.number:>{first}}  {row.outcome:<{width}}  {row.exit_code:>4}  {wall}"


def _notes(end: JobEnd) -> Iterable[str]:
    if end.host and end.host.get("verdict") == "emulated":
        yield ""
        yield "note: the processor was emulated, so these times say nothing about the machine"
    for row in end.iterations:
        if row.error:
            yield f"iteration {row.number}: {row.error}"
