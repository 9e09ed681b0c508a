"""The messages of the runner channel's sub-protocol ``metalmark.1``: JSON objects in text frames.

They are told apart by ``event``. Several jobs share one connection, so every message about a job names it and the
number of its lease. A runner's message carries an ``id`` of its choice, and the answer repeats it as ``re``: ``ack``
when it was taken, ``refused`` with a reason when not. A message that is sent again is harmless.

A connection begins with the runner's `RunnerHello` and the server's `Welcome`. From then on `Wanting` says how many
more jobs fit and of which specs; the server sends a `LeasedJob` for each that it finds. Results up to
`INLINE_OUTPUT_MAX_BYTES` go with the message that ends the job; larger ones are uploaded first and named by their
checksum.
"""

from __future__ import annotations

import base64
import binascii
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, EncodedBytes, EncoderProtocol, Field, JsonValue, TypeAdapter
from pydantic_core import PydanticCustomError

from metalmark.model import Phase
from metalmark.wire.channel import VERSION_MAX_LENGTH, Checksum, read_message
from metalmark.wire.iteration_output import HostOutput, IterationEnds, Results
from metalmark.wire.job_config import JobConfig
from metalmark.wire.rest_specs import Architecture, OperatingSystem, SpecBody
from metalmark.wire.scalars import U32, Body, DateTimeField, Flag, PositiveI32, Text, UrlField, UuidField

SUBPROTOCOL = "metalmark.1"
INLINE_OUTPUT_MAX_BYTES = 1024 * 1024
"""Size of the results' JSON above which they are uploaded."""
FRAME_MAX_BYTES = 4 * 1024 * 1024
"""Largest message of this sub-protocol in either direction."""
SLOTS_MAX = 64
"""Most jobs of one connection."""
CHUNK_MAX_BYTES = 64 * 1024
"""Most bytes of one piece of live output."""
CHUNKS_MAX = 32
"""Most pieces of live output in one message."""
FACTS_MAX_BYTES = 64 * 1024
ERROR_MAX_LENGTH = 16 * 1024

PositiveI64 = Annotated[int, Field(strict=True, ge=1, le=2**63 - 1)]
ByteCount = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
"""A number of bytes that every JSON reader keeps exact."""
Word = Annotated[Text, Field(min_length=1, max_length=128)]
MessageId = U32
LeaseNumber = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]


class _StrictBase64(EncoderProtocol):
    """Base64 without line feeds, and without the library's tolerance for characters that are none of it."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise PydanticCustomError("base64", "this is not Base64") from error

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return base64.b64encode(value)

    @classmethod
    def get_json_format(cls) -> Literal["base64"]:
        return "base64"


ChunkBytes = Annotated[
    bytes, Field(min_length=1, max_length=(CHUNK_MAX_BYTES + 2) // 3 * 4), EncodedBytes(encoder=_StrictBase64)
]


class _Message(Body):
    model_config = ConfigDict(frozen=True, extra="ignore")


class HeldLease(_Message):
    """A job and the number under which a runner holds it."""

    job: UuidField
    lease: LeaseNumber


class _Told(_Message):
    id: MessageId


class _OfJob(_Told):
    job: UuidField
    lease: LeaseNumber


class ProvedCapabilities(_Message):
    """What the runner's own probes proved; nothing in it is assumed. An absent amount is unlimited."""

    os: OperatingSystem
    architecture: Architecture
    sandboxes: Annotated[tuple[Literal["firecracker", "qemu", "container", "none"], ...], Field(max_length=16)]
    vcpus: PositiveI32 | None = None
    memory_bytes: PositiveI64 | None = None
    disk_bytes: PositiveI64 | None = None
    network: Flag | None = None


class RunnerHello(_Told):
    """The first message of a connection: who speaks, what it can do, which leases it still holds.

    ``process`` is drawn at random when the runner starts, ``boot`` is the kernel's boot id: a second connection with
    both the same replaces the first.
    """

    event: Literal["hello"] = "hello"
    version: Annotated[Text, Field(max_length=VERSION_MAX_LENGTH)]
    process: Word
    boot: Word
    capabilities: ProvedCapabilities
    facts: dict[str, JsonValue] | None = None
    """What else the runner says of its host; at most `FACTS_MAX_BYTES` as JSON."""
    holding: Annotated[tuple[HeldLease, ...], Field(max_length=SLOTS_MAX)] = ()
    checksum: Checksum | None = None
    """SHA-256 of the installed update artifact, when the runner can be updated."""


class Wanting(_Told):
    """How many more jobs fit now, and of which specs (None: any of the runner's).

    ``received`` counts the jobs that came over this connection so far: those still on their way are not counted twice.
    """

    event: Literal["ready"] = "ready"
    slots: Annotated[int, Field(strict=True, ge=0, le=SLOTS_MAX)]
    received: U32
    specs: Annotated[tuple[UuidField, ...], Field(max_length=1024)] | None = None


class Attach(_OfJob):
    """The runner goes on with a job that it was given over an earlier connection."""

    event: Literal["attach"] = "attach"


class Began(_OfJob):
    """The benchmark itself begins: from here on a lost runner is no reason to try again.

    An iteration that is named (not 0) says, too, that the job has entered `Phase.EXEC` of it.
    """

    event: Literal["running"] = "running"
    iteration: U32 = 0


class PhaseTold(_OfJob):
    """The job entered a phase of an iteration (0 before the first)."""

    event: Literal["phase"] = "phase"
    phase: Phase
    iteration: U32 = 0


class StillAlive(_Told):
    """The runner still works on these jobs; the answer names those that are no longer its own."""

    event: Literal["heartbeat"] = "heartbeat"
    jobs: Annotated[tuple[HeldLease, ...], Field(max_length=SLOTS_MAX)] = ()


class OutputChunk(_Message):
    """A piece of what an iteration printed, Base64: it need not be text."""

    iteration: U32
    stream: Literal["stdout", "stderr"]
    data: ChunkBytes

    @classmethod
    def of(cls, data: bytes, *, iteration: int, stream: Literal["stdout", "stderr"]) -> OutputChunk:
        """Return a chunk of at most `CHUNK_MAX_BYTES`. The constructor itself takes Base64, as the wire has it."""
        return cls(iteration=iteration, stream=stream, data=base64.b64encode(data))


class LiveOutput(_OfJob):
    """Pieces of live output, one after the other from byte ``offset`` of all that the job printed under this lease.

    What is stored already is passed over. An offset beyond that says that the runner dropped what is between.
    """

    event: Literal["output"] = "output"
    offset: ByteCount
    chunks: Annotated[tuple[OutputChunk, ...], Field(min_length=1, max_length=CHUNKS_MAX)]


class Uploaded(_Message):
    """Output that was uploaded before: its SHA-256 and its size."""

    checksum: Checksum
    size_bytes: ByteCount


class _Ended(_OfJob):
    results: Results | None = None
    uploaded: Uploaded | None = None
    """In place of ``results``, and of what follows but ``iterations``."""
    iterations: IterationEnds | None = None
    """How each ended, where ``results`` do not say it."""
    host: HostOutput | None = None
    phases: dict[Phase, float] | None = None
    """See `JobOutput`."""


class Succeeded(_Ended):
    """All iterations ran."""

    event: Literal["completed"] = "completed"


class Broke(_Ended):
    """The job failed. ``infrastructure`` says that the benchmark is not to blame: the machine or the network is."""

    event: Literal["failed"] = "failed"
    error: Annotated[Text, Field(max_length=ERROR_MAX_LENGTH)]
    infrastructure: Flag = False


class Stopped(_Ended):
    """The job was stopped: on the server's word, or because the runner is on its way out."""

    event: Literal["canceled"] = "canceled"


class Welcome(_Message):
    """The answer to `RunnerHello`: the server's version and the bounds that it holds the runner to.

    ``held`` are those of the runner's leases that are still its own; it drops the other jobs.
    """

    event: Literal["welcome"] = "welcome"
    re: MessageId
    version: Text
    heartbeat_timeout_s: Annotated[float, Field(gt=0)]
    frame_max_bytes: PositiveI64
    inline_output_max_bytes: PositiveI64
    held: tuple[HeldLease, ...] = ()


class LeasedJob(_Message):
    """A claimed job under a lease. ``oci_token`` opens the image until ``expires``."""

    event: Literal["job"] = "job"
    job: UuidField
    lease: LeaseNumber
    spec: SpecBody
    config: JobConfig
    oci_token: Text
    timeout: PositiveI32
    created: DateTimeField
    expires: DateTimeField


class Taken(_Message):
    """A message was taken. For `StillAlive`, ``lost`` names the leases that are no longer the runner's."""

    event: Literal["ack"] = "ack"
    re: MessageId
    lost: tuple[HeldLease, ...] = ()


class RefusalReason(StrEnum):
    """Why a message had no effect."""

    STALE_LEASE = "stale_lease"
    """The job is another's now, or back in the queue, or unknown: drop it."""
    OVER = "over"
    """The job has ended otherwise: drop it."""
    NOT_UPLOADED = "not_uploaded"
    """There is no upload with this checksum under this lease: upload it again."""
    INVALID = "invalid"
    """The message cannot be understood, or not here."""
    BUSY = "busy"
    """The store cannot take it now: send it again after a second."""
    TOO_MUCH_OUTPUT = "too_much_output"
    """The job's live output is at its bound: send no more of it."""


class Refused(_Message):
    """A message had no effect."""

    event: Literal["refused"] = "refused"
    re: MessageId | None
    reason: RefusalReason
    message: Text = ""


class StopJob(_Message):
    """Stop this job; sent the moment it is canceled."""

    event: Literal["cancel"] = "cancel"
    job: UuidField
    lease: LeaseNumber


class NewVersion(_Message):
    """The operator published another version of the runner: where it is and its SHA-256."""

    event: Literal["update"] = "update"
    version: Annotated[Text, Field(max_length=VERSION_MAX_LENGTH)]
    url: UrlField
    checksum: Checksum


FromRunner = RunnerHello | Wanting | Attach | Began | PhaseTold | StillAlive | LiveOutput | Succeeded | Broke | Stopped
FromServer = Welcome | LeasedJob | Taken | Refused | StopJob | NewVersion
JobEnd = Succeeded | Broke | Stopped

_FROM_RUNNER: TypeAdapter[FromRunner] = TypeAdapter(Annotated[FromRunner, Field(discriminator="event")])
_FROM_SERVER: TypeAdapter[FromServer] = TypeAdapter(Annotated[FromServer, Field(discriminator="event")])


def read_from_runner(text: str | bytes) -> FromRunner:
    """Read what one of our runners sent.

    Raises:
        ProtocolError: It is no message, or a field is out of its bounds; it never repeats a value.
    """
    return read_message(_FROM_RUNNER, text)


def read_from_server(text: str | bytes) -> FromServer:
    """Read what a server sent to one of our runners.

    Raises:
        ProtocolError: It is no message, or a field is out of its bounds; it never repeats a value.
    """
    return read_message(_FROM_SERVER, text)
