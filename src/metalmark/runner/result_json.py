"""Writes a run's result as one JSON object, with the output that was kept, one iteration in memory at a time."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import IO

from metalmark.model import FileResult, FilesResult, IterationResult, StreamResult
from metalmark.runner.executor import RunRecord
from metalmark.runner.iteration import IterationRecord


def write_result(record: RunRecord, target: IO[str]) -> None:
    """Write the object and a newline. Its ``iterations`` come last, each with its streams and files embedded."""
    head = record.result.model_dump_json(exclude={"iterations"})
    target.write(head[:-1] + ',"iterations":[')
    for number, iteration in enumerate(record.iterations):
        target.write("," if number else "")
        target.write(embedded(iteration).model_dump_json())
    target.write("]}\n")


def embedded(record: IterationRecord) -> IterationResult:
    """Return an iteration's result with the text of its streams and files in it."""
    result = record.result
    files = tuple(
        _file(file, collected.kept) for file, collected in zip(result.output.files, record.collected.files, strict=True)
    )
    return result.model_copy(
        update={
            "stdout": _stream(result.stdout, record.folder / "stdout"),
            "stderr": _stream(result.stderr, record.folder / "stderr"),
            "output": FilesResult(files=files, missing=result.output.missing, truncated=result.output.truncated),
        }
    )


def _stream(result: StreamResult, path: Path) -> StreamResult:
    text, encoded = _content(path.read_bytes())
    # A stream always has text, so that a reader need not look at two fields.
    shown = path.read_bytes().decode("utf-8", "replace") if text is None else text
    return result.model_copy(update={"text": shown, "base64": encoded})


def _file(result: FileResult, path: Path) -> FileResult:
    text, encoded = _content(path.read_bytes())
    return result.model_copy(update={"text": text, "base64": encoded})


def _content(data: bytes) -> tuple[str | None, str | None]:
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError:
        return None, base64.b64encode(data).decode("ascii")
