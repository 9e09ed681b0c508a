"""A job's body: what is left out, and what is null."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

from metalmark.model import JobStatus, PendingCause
from metalmark.wire import IterationOutput, JobBody, JobOutput, JobStatusName, PendingReasonBody, SpecBody

ID = UUID("01970000-0000-7000-8000-000000000000")
NOW = datetime(2026, 1, 31, 9, 15, 0, 500_000, tzinfo=UTC)
SPEC = SpecBody(
    uuid=ID,
    name="Small",
    slug="small",
    os="linux",
    architecture="x86_64",
    cpu=1,
    memory=1,
    disk=1,
    network=False,
    created=NOW,
    modified=NOW,
)


def body(**values: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "uuid": ID,
        "status": "pending",
        "spec": SPEC,
        "created": NOW,
        "modified": NOW,
        "report": ID,
        "priority": 100,
        "lease": 0,
        "retries": 0,
    }
    written: dict[str, Any] = JobBody(**{**fields, **values}).model_dump(mode="json")
    return written


def test_only_output_is_left_out() -> None:
    written = body()
    assert "output" not in written
    for name in ("runner", "claimed", "started", "completed", "phase", "retry_of", "end_reason", "error", "pending"):
        assert written[name] is None
    assert written["created"] == "2026-01-31T09:15:00Z"


def test_output_and_reason_are_written_as_they_are() -> None:
    output = JobOutput(results=(IterationOutput(exit_code=0, stdout="x"),))
    assert body(output=output)["output"] == {"results": [{"exit_code": 0, "stdout": "x"}]}
    reason = PendingReasonBody(cause="limited", text="later")
    assert body(pending=reason)["pending"] == {"cause": "limited", "text": "later", "position": None}


def test_the_wires_words_are_the_models() -> None:
    assert set(get_args(JobStatusName)) == {status.value for status in JobStatus}
    assert set(get_args(PendingReasonBody.model_fields["cause"].annotation)) == {cause.value for cause in PendingCause}
