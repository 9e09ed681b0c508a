"""The message that tells a server how a job ended, made of the end on disk. Blocking: reads files."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from pydantic import ValidationError

from metalmark.runner.end_file import EndKind, SpooledEnd, has_results
from metalmark.wire import (
    ERROR_MAX_LENGTH,
    Broke,
    IterationOutput,
    JobCanceled,
    JobCompleted,
    JobEnd,
    JobFailed,
    JobOutput,
    Stopped,
    Succeeded,
    TerminalMessage,
    Uploaded,
)

_UNREADABLE = "the results cannot be read back from the runner's disk"


def own_end(end: SpooledEnd, *, message_id: int, uploaded: bool, without_results: str = "") -> JobEnd:
    """Return the message for a server of ours.

    Args:
        end: The end on disk.
        message_id: The message's.
        uploaded: Whether the server has the document already.
        without_results: Why the results do not go with it; empty when they do.
    """
    what: dict[str, object] = {"id": message_id, "job": end.job, "lease": end.lease}
    infrastructure = end.infrastructure
    if uploaded and not without_results:
        what["uploaded"] = Uploaded(checksum=end.checksum, size_bytes=end.size_bytes)
    elif not without_results:
        document = _document(end)
        if document is None:
            without_results, infrastructure = _UNREADABLE, True
        else:
            what |= {"results": document.results, "host": document.host, "phases": document.phases}
    if without_results:
        what["results"] = ()
    if end.iterations and (uploaded or without_results):
        what["iterations"] = end.iterations
    if end.kind is EndKind.CANCELED:
        return Stopped.model_validate(what)
    if end.kind is EndKind.FAILED or without_results:
        error = _with_reason(end.error, without_results)[:ERROR_MAX_LENGTH]
        return Broke.model_validate({**what, "error": error, "infrastructure": infrastructure})
    return Succeeded.model_validate(what)


def public_end(end: SpooledEnd, *, without_results: str = "", as_failure: bool = False) -> TerminalMessage:
    """Return the message for a server of public messages, without what such a server does not know.

    Args:
        end: The end on disk.
        without_results: Why the results do not go with it; empty when they do.
        as_failure: Whether to tell it as a failure whatever it was: that is the one end that fits any state of a job.
    """
    results: tuple[IterationOutput, ...] = ()
    if not without_results:
        document = _document(end)
        if document is None:
            without_results = _UNREADABLE
        else:
            results = tuple(_public(result) for result in document.results)
    if end.kind is EndKind.CANCELED and not as_failure:
        return JobCanceled(job=end.job)
    if end.kind is EndKind.COMPLETED and not (without_results or as_failure):
        return JobCompleted(job=end.job, results=results)
    fallback = "the job was stopped" if end.kind is EndKind.CANCELED else "the server did not take the results"
    error = _with_reason(end.error, without_results) or fallback
    return JobFailed(job=end.job, results=results, error=error[:ERROR_MAX_LENGTH])


def _with_reason(error: str | None, reason: str) -> str:
    return "; ".join(part for part in (error, reason) if part)


def _document(end: SpooledEnd) -> JobOutput | None:
    if not has_results(end):
        return JobOutput(results=())
    try:
        return JobOutput.model_validate_json(end.document.read_bytes())
    except (OSError, ValidationError):
        return None


def _public(result: IterationOutput) -> IterationOutput:
    output = dict(result.output or {})
    for path, data in (result.output_base64 or {}).items():
        output[path] = _text(data)
    has_files = result.output is not None or result.output_base64 is not None
    return IterationOutput(
        exit_code=result.exit_code,
        stdout=_stream(result.stdout, result.stdout_base64),
        stderr=_stream(result.stderr, result.stderr_base64),
        output=_sorted(output) if has_files else None,
    )


def _sorted(output: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(output.items()))


def _stream(text: str | None, data: str | None) -> str | None:
    return text if data is None else _text(data)


def _text(data: str) -> str:
    try:
        return base64.b64decode(data).decode("utf-8", errors="replace")
    except binascii.Error:
        return ""
