"""The document in which a server keeps a job's output, written piece by piece: no output is in memory as a whole.

Its form is `metalmark.wire.JobOutput`; a test holds the one to the other.
"""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from metalmark.model import Phase, RunResult
from metalmark.runner.executor import RunRecord
from metalmark.runner.iteration import IterationRecord
from metalmark.runner.output_files import CollectedFile
from metalmark.runner.result_spool import ByteSink
from metalmark.wire import HostOutput, IterationOutput, JobConfig, JobOutput

_BLOCK_BYTES = 48 * 1024
"""Divisible by three: what is Base64 piece by piece is so as a whole."""
_METRICS_KEY = "\0bencher"
"""Path that stands for metrics that the runner took itself; no file has such a one."""


def write_document(record: RunRecord, config: JobConfig, error: str | None, sink: ByteSink) -> None:
    """Write the output of a run. Blocking.

    Args:
        record: The run; its output is still in its folders.
        config: Whether files are wanted, or their sizes and the time that was taken.
        error: Why the job failed; None when it did not.
        sink: Where to.

    Raises:
        NoSpace: From the sink.
    """
    head = JobOutput(results=(), error=error, host=_host(record.result), phases=_seconds(record.result))
    # The results come last, and the rest is small.
    text = head.model_dump_json(exclude={"results"})
    sink.write((text[:-1] + ("," if text != "{}" else "") + '"results":[').encode())
    for number, iteration in enumerate(record.iterations):
        sink.write(b"," if number else b"")
        _write_iteration(iteration, config, sink)
    sink.write(b"]}")


def build_name(config: JobConfig) -> str:
    """Return the name of the benchmark that a job as a whole is, for the time that it took."""
    words = (*(config.entrypoint or ()), *(config.cmd or ()))
    return " ".join(words) or config.image or f"{config.project}@{config.digest}"


def _write_iteration(record: IterationRecord, config: JobConfig, sink: ByteSink) -> None:
    result = record.result
    head = IterationOutput(
        exit_code=result.exit_code,
        outcome=result.outcome,
        signal=result.signal,
        wall_s=result.wall_s,
        phases={phase.phase: phase.duration_s for phase in result.phases} or None,
        error=None if result.error is None else result.error.message,
        output=_metrics(record, config),
    )
    sink.write(head.model_dump_json()[:-1].encode())
    for name, spooled in (("stdout", record.folder / "stdout"), ("stderr", record.folder / "stderr")):
        if spooled.stat().st_size:
            _write_content(spooled, name, sink)
    if not (config.build_time or config.file_size):
        _write_files(record.collected.files, sink)
    sink.write(b"}")


def _write_content(path: Path, name: str, sink: ByteSink) -> None:
    if _is_text(path):
        sink.write(f",{json.dumps(name)}:".encode())
        _write_text(path, sink)
    else:
        sink.write(f",{json.dumps(name + '_base64')}:".encode())
        _write_base64(path, sink)


def _write_files(files: tuple[CollectedFile, ...], sink: ByteSink) -> None:
    texts = [file for file in files if _is_text(file.kept)]
    for name, group, write in (
        ("output", texts, _write_text),
        ("output_base64", [file for file in files if file not in texts], _write_base64),
    ):
        if not group:
            continue
        sink.write(f',"{name}":{{'.encode())
        for number, file in enumerate(group):
            path = file.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            sink.write(("," if number else "").encode() + json.dumps(path).encode() + b":")
            write(file.kept, sink)
        sink.write(b"}")


def _metrics(record: IterationRecord, config: JobConfig) -> dict[str, str] | None:
    measures: dict[str, dict[str, dict[str, float]]] = {}
    if config.build_time and record.result.wall_s is not None:
        measures[build_name(config)] = {"build-time": {"value": round(record.result.wall_s, 2)}}
    if config.file_size:
        for file in record.collected.files:
            name = PurePosixPath(file.path).name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            measures.setdefault(name, {})["file-size"] = {"value": file.size_bytes}
    return {_METRICS_KEY: json.dumps(measures)} if measures else None


def _host(result: RunResult) -> HostOutput | None:
    host = result.host
    if host is None:
        return None
    return HostOutput(
        metalmark_version=result.metalmark_version,
        verdict=result.verdict,
        sandbox=host.sandbox,
        accelerator=host.accelerator,
        reason=host.reason,
        kernel=host.kernel or None,
        cpus=host.cpus,
        helper_cpus=host.helper_cpus,
        details=host.details,
        warnings=host.warnings,
    )


def _seconds(result: RunResult) -> dict[Phase, float] | None:
    return {phase.phase: phase.duration_s for phase in result.phases} or None


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while data := stream.read(_BLOCK_BYTES):
            yield data


def _is_text(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for data in _blocks(path):
            decoder.decode(data)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _write_text(path: Path, sink: ByteSink) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    sink.write(b'"')
    for data in _blocks(path):
        sink.write(json.dumps(decoder.decode(data), ensure_ascii=False)[1:-1].encode())
    sink.write(b'"')


def _write_base64(path: Path, sink: ByteSink) -> None:
    sink.write(b'"')
    for data in _blocks(path):
        sink.write(base64.b64encode(data))
    sink.write(b'"')
