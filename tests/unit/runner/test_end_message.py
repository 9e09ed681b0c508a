from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from metalmark.runner.end_file import EndKind, SpooledEnd
from metalmark.runner.end_message import own_end, public_end
from metalmark.wire import (  # fmt: skip
    Broke,
    HostOutput,
    IterationEnd,
    IterationOutput,
    JobCanceled,
    JobCompleted,
    JobFailed,
    JobOutput,
    Stopped,
    Succeeded,
    Uploaded,
)

JOB = UUID(int=7)
HOST = HostOutput(metalmark_version="1", verdict="measured", sandbox="qemu", accelerator="kvm")
OUTPUT = JobOutput(
    results=(
        IterationOutput(exit_code=0, stdout="{}", stderr_base64="/3g=", output={"b": "2"}, output_base64={"a": "/w=="}),
        IterationOutput(exit_code=3, wall_s=1.5),
    ),
    host=HOST,
)


ENDS = (IterationEnd(iteration=1, exit_code=0), IterationEnd(iteration=2, exit_code=3, wall_s=1.5))


def spooled(folder: Path, kind: EndKind, *, document: bytes | None = None, **fields: Any) -> SpooledEnd:
    text = OUTPUT.model_dump_json().encode() if document is None else document
    path = folder / "end.json"
    path.write_bytes(text)
    said = {"error": "exit code 3" if kind is EndKind.FAILED else None, "infrastructure": False, **fields}
    return SpooledEnd(
        job=JOB,
        lease=4,
        kind=kind,
        document=path,
        checksum=hashlib.sha256(text).hexdigest(),
        size_bytes=len(text),
        iterations=ENDS,
        **said,
    )


def test_our_server_is_told_everything(tmp_path: Path) -> None:
    message = own_end(spooled(tmp_path, EndKind.COMPLETED), message_id=9, uploaded=False)
    assert isinstance(message, Succeeded)
    assert (message.id, message.job, message.lease, message.uploaded) == (9, JOB, 4, None)
    assert (message.results, message.host) == (OUTPUT.results, HOST)
    failed = own_end(spooled(tmp_path, EndKind.FAILED, infrastructure=True), message_id=1, uploaded=False)
    assert isinstance(failed, Broke)
    assert (failed.error, failed.infrastructure, failed.results) == ("exit code 3", True, OUTPUT.results)
    stopped = own_end(spooled(tmp_path, EndKind.CANCELED), message_id=1, uploaded=False)
    assert isinstance(stopped, Stopped) and stopped.results == OUTPUT.results


@pytest.mark.parametrize("kind", list(EndKind))
def test_what_was_uploaded_is_named_and_not_read(tmp_path: Path, kind: EndKind) -> None:
    end = spooled(tmp_path, kind)
    end.document.unlink()
    message = own_end(end, message_id=1, uploaded=True)
    assert message.uploaded == Uploaded(checksum=end.checksum, size_bytes=end.size_bytes)
    assert message.results is None
    assert message.iterations == ENDS


def test_how_iterations_ended_is_told_once(tmp_path: Path) -> None:
    end = spooled(tmp_path, EndKind.COMPLETED)
    assert own_end(end, message_id=1, uploaded=False).iterations is None
    refused = own_end(end, message_id=1, uploaded=True, without_results="too large")
    assert (refused.results, refused.iterations) == ((), ENDS)


def test_success_without_its_results_is_a_failure(tmp_path: Path) -> None:
    message = own_end(spooled(tmp_path, EndKind.COMPLETED), message_id=1, uploaded=True, without_results="too large")
    assert isinstance(message, Broke)
    assert (message.error, message.results, message.uploaded, message.infrastructure) == ("too large", (), None, False)
    failed = own_end(spooled(tmp_path, EndKind.FAILED), message_id=1, uploaded=False, without_results="too large")
    assert isinstance(failed, Broke) and failed.error == "exit code 3; too large"
    stopped = own_end(spooled(tmp_path, EndKind.CANCELED), message_id=1, uploaded=False, without_results="too large")
    assert isinstance(stopped, Stopped)


@pytest.mark.parametrize("document", [b"", b"{", b'{"results": 1}'])
def test_document_that_cannot_be_read_is_the_machines_fault(tmp_path: Path, document: bytes) -> None:
    message = own_end(spooled(tmp_path, EndKind.COMPLETED, document=document), message_id=1, uploaded=False)
    assert isinstance(message, Broke) and message.infrastructure and message.results == ()
    public = public_end(spooled(tmp_path, EndKind.COMPLETED, document=document))
    assert isinstance(public, JobFailed) and "read back" in public.error


def test_other_servers_are_told_what_they_know(tmp_path: Path) -> None:
    message = public_end(spooled(tmp_path, EndKind.COMPLETED))
    assert isinstance(message, JobCompleted)
    assert [result.model_dump(exclude_none=True) for result in message.results] == [
        {"exit_code": 0, "stdout": "{}", "stderr": "\ufffdx", "output": {"a": "\ufffd", "b": "2"}},
        {"exit_code": 3},
    ]
    assert public_end(spooled(tmp_path, EndKind.CANCELED)) == JobCanceled(job=JOB)
    failed = public_end(spooled(tmp_path, EndKind.FAILED))
    assert isinstance(failed, JobFailed)
    assert (failed.error, len(failed.results)) == ("exit code 3", 2)


def test_failure_fits_every_state_of_a_job(tmp_path: Path) -> None:
    stopped = public_end(spooled(tmp_path, EndKind.CANCELED), as_failure=True)
    assert isinstance(stopped, JobFailed) and stopped.error == "the job was stopped"
    too_large = public_end(spooled(tmp_path, EndKind.COMPLETED), without_results="too large")
    assert too_large == JobFailed(job=JOB, results=(), error="too large")
    assert public_end(spooled(tmp_path, EndKind.CANCELED), without_results="x") == JobCanceled(job=JOB)
