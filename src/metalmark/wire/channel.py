"""The messages of the runner channel in its public form: JSON objects in text frames, told apart by ``event``.

A runner sends `RunnerReady`, `RunnerRunning`, `RunnerHeartbeat`, `JobCompleted`, `JobFailed` and `JobCanceled`; the
server answers with `JobMessage`, `NoJob`, `Ack`, `CancelJob` and `UpdateOffer`. One connection carries one job at a
time, so the first messages of a job do not name it. Unknown fields are ignored. The messages of our own runners are
in `channel_metalmark`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, TypeAdapter, ValidationError, model_serializer

from metalmark.model import ProtocolError, printable
from metalmark.wire.iteration_output import Results
from metalmark.wire.job_config import JobConfig
from metalmark.wire.rest_specs import Architecture, OperatingSystem, SpecBody
from metalmark.wire.scalars import Body, DateTimeField, PositiveI32, Text, UrlField, UuidField

POLL_TIMEOUT_S = 30
"""How long a ready runner waits for a job when it does not say."""
POLL_TIMEOUT_MAX_S = 900
VERSION_MAX_LENGTH = 256

Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
"""SHA-256 in lower-case hex."""
T = TypeVar("T")


class RunnerMetadata(Body):
    """What a runner says of its own program, for offers of an update."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    os: OperatingSystem
    arch: Architecture
    version: Annotated[Text, Field(max_length=VERSION_MAX_LENGTH)]
    channel: Literal["stable", "canary"] | None = None
    """None is stable."""
    checksum: Checksum | None = None


class RunnerReady(Body):
    """The runner wants a job and waits ``poll_timeout`` seconds for it."""

    event: Literal["ready"] = "ready"
    poll_timeout: Annotated[int, Field(strict=True, ge=1, le=POLL_TIMEOUT_MAX_S)] | None = None
    runner: RunnerMetadata | None = None

    @property
    def poll_timeout_s(self) -> int:
        """How long to wait, with the default filled in."""
        return POLL_TIMEOUT_S if self.poll_timeout is None else self.poll_timeout


class RunnerRunning(Body):
    """The job has begun."""

    event: Literal["running"] = "running"


class RunnerHeartbeat(Body):
    """The runner is alive and still at the job."""

    event: Literal["heartbeat"] = "heartbeat"


class JobCompleted(Body):
    """The job ended well, with these results."""

    event: Literal["completed"] = "completed"
    job: UuidField
    results: Results


class JobFailed(Body):
    """The job failed, after these results."""

    event: Literal["failed"] = "failed"
    job: UuidField
    results: Results
    error: Text


class JobCanceled(Body):
    """The job was stopped on the server's request."""

    event: Literal["canceled"] = "canceled"
    job: UuidField


RunnerMessage = RunnerReady | RunnerRunning | RunnerHeartbeat | JobCompleted | JobFailed | JobCanceled
TerminalMessage = JobCompleted | JobFailed | JobCanceled


class JobMessage(Body):
    """A claimed job, everything a runner needs to run it. ``timeout`` repeats the configuration's, in seconds."""

    event: Literal["job"] = "job"
    uuid: UuidField
    spec: SpecBody
    config: JobConfig
    oci_token: Text
    timeout: PositiveI32
    created: DateTimeField


class NoJob(Body):
    """There was no job within the poll timeout; the runner says `RunnerReady` again."""

    event: Literal["no_job"] = "no_job"


class Ack(Body):
    """The last message was taken. ``job`` is left out where it was about none."""

    event: Literal["ack"] = "ack"
    job: UuidField | None = None

    @model_serializer(mode="wrap")
    def _leave_out_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in handler(self).items() if value is not None}


class CancelJob(Body):
    """Stop the job; the answer to `RunnerRunning` and `RunnerHeartbeat` when it is canceled."""

    event: Literal["cancel"] = "cancel"


class UpdateOffer(Body):
    """A newer program for the runner: where it is and the SHA-256 of its bytes."""

    event: Literal["update"] = "update"
    version: Annotated[Text, Field(max_length=VERSION_MAX_LENGTH)]
    url: UrlField
    checksum: Checksum


ServerMessage = JobMessage | NoJob | Ack | CancelJob | UpdateOffer

_FROM_RUNNER: TypeAdapter[RunnerMessage] = TypeAdapter(Annotated[RunnerMessage, Field(discriminator="event")])
_FROM_SERVER: TypeAdapter[ServerMessage] = TypeAdapter(Annotated[ServerMessage, Field(discriminator="event")])


def read_runner_message(text: str | bytes) -> RunnerMessage:
    """Read what a runner sent.

    Raises:
        ProtocolError: It is no JSON, has an unknown event, lacks a field, or one is out of its bounds.
    """
    return read_message(_FROM_RUNNER, text)


def read_server_message(text: str | bytes) -> ServerMessage:
    """Read what a server sent.

    Raises:
        ProtocolError: It is no JSON, has an unknown event, lacks a field, or one is out of its bounds.
    """
    return read_message(_FROM_SERVER, text)


def read_message(adapter: TypeAdapter[T], text: str | bytes) -> T:
    """Read one message of a channel.

    Raises:
        ProtocolError: It is none. The error names the field and never repeats the value.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "a channel message"
        # The message about an unknown tag would repeat what was sent.
        why = "no such event" if first["type"] == "union_tag_invalid" else first["msg"][:256]
        raise ProtocolError(f"{printable(place[:128])} cannot be read", why=why) from None


def channel_text(message: Body) -> str:
    """Return the text of a message."""
    return message.model_dump_json()
