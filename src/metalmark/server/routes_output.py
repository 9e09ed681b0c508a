"""Output of jobs: uploaded by their runners, read and followed by people."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated
from uuid import UUID

import anyio
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BeforeValidator
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from metalmark.model import Conflict, JobStatus, NotFound, Permission, TooLarge, TooManyRequests, Unauthenticated
from metalmark.server.actor import Anonymous, caller_of
from metalmark.server.caller import CurrentActor
from metalmark.server.context import CurrentContext, ServerContext
from metalmark.server.openapi import RUNNER_SECURITY
from metalmark.server.output_stream import OutputFollower
from metalmark.server.paging import Flag
from metalmark.server.permission import project_for
from metalmark.server.runner_credential import runner_of
from metalmark.server.uploads import Upload, take_in, uploaded_bytes
from metalmark.store import JobRecord, find_job
from metalmark.wire import ResourceIdField, UploadBody, UuidField

router = APIRouter(tags=["jobs"])

_UPLOADS_AT_ONCE = 16
_UPLOADS_OF_ONE = 4
_FOLLOWERS_AT_ONCE = 512
_FOLLOWERS_OF_ONE = 64

# In this version of OpenAPI the schema of a stream is that of each event.
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["output", "pending", "phase", "restart", "end"]},
        "id": {"type": "string", "description": "Where the stream is; of `output` alone."},
        "data": {"type": "string", "description": "A JSON object."},
    },
}


class _Traffic:
    """What of this kind a server carries at the moment."""

    def __init__(self) -> None:
        self._uploads = anyio.CapacityLimiter(_UPLOADS_AT_ONCE)
        self._uploads_of: dict[UUID, anyio.CapacityLimiter] = {}
        self._followers: Counter[str] = Counter()

    @asynccontextmanager
    async def upload(self, runner: UUID) -> AsyncIterator[None]:
        """Wait for a place; a runner that is slow takes few of them."""
        own = self._uploads_of.setdefault(runner, anyio.CapacityLimiter(_UPLOADS_OF_ONE))
        async with own, self._uploads:
            yield

    def check_follower(self, caller: str) -> None:
        """Raise `TooManyRequests` when there is no place for one more."""
        if self._followers.total() >= _FOLLOWERS_AT_ONCE or self._followers[caller] >= _FOLLOWERS_OF_ONE:
            raise TooManyRequests("followers of output", retry_after_s=5)

    @contextmanager
    def following(self, caller: str) -> Iterator[None]:
        """Count a follower while the context lasts."""
        self._followers[caller] += 1
        try:
            yield
        finally:
            self._followers[caller] -= 1
            if not self._followers[caller]:
                del self._followers[caller]


def _traffic(request: Request) -> _Traffic:
    state = request.app.state
    if not hasattr(state, "output_traffic"):
        state.output_traffic = _Traffic()
    traffic: _Traffic = state.output_traffic
    return traffic


def _digits(value: object) -> object:
    # The framework reads "1.0" and " 1" as numbers too.
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise ValueError("this is not a whole number")
    return value


_Digits = BeforeValidator(_digits)
Lease = Annotated[int, _Digits, Query(ge=1, le=2**31 - 1, description="Number of the lease that holds the job.")]
Checksum = Annotated[str, Query(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the whole output, lower-case hex.")]
Size = Annotated[int, _Digits, Query(ge=1, le=2**53 - 1, description="Bytes of the whole output.")]
Offset = Annotated[int, _Digits, Query(ge=0, le=2**53 - 1, description="Where in the whole this body begins.")]


async def _held_job(context: ServerContext, runner: UUID, job_id: UUID, lease: int) -> JobRecord:
    async with context.store.read() as connection:
        job = await find_job(connection, job_id)
    if job is None or job.runner != runner:
        raise NotFound("job", job_id)
    # A job that failed for want of news may still be completed by its result.
    if job.lease != lease or not (job.status.is_active or job.status is JobStatus.FAILED):
        raise Conflict("the job is not held under this lease", field="lease", hint="drop the job")
    return job


_BYTES = {"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


@router.put(
    "/v0/runners/{runner}/jobs/{job}/output",
    operation_id="runner_job_output_put",
    responses={202: {"model": UploadBody, "description": "More is to come."}},
    openapi_extra={**RUNNER_SECURITY, **_BYTES},
)
async def put_output(
    *,
    request: Request,
    context: CurrentContext,
    runner: ResourceIdField,
    job: UuidField,
    lease: Lease,
    checksum: Checksum,
    size: Size,
    offset: Offset = 0,
    response: Response,
) -> UploadBody:
    """Upload output, or go on with an upload. The runner's key is the credential.

    The body is the ``JobOutput`` document, in any encoding of bytes that the checksum is of; a body that ends early is
    kept, and the next one begins at the offset that the answer names. 202 says that more is to come.
    """
    record = await runner_of(context, request, runner)
    if size > context.config.server.output_max_bytes:
        raise TooLarge("the output", context.config.server.output_max_bytes)
    upload = Upload(job=await _held_job(context, record.id, job, lease), checksum=checksum, size_bytes=size)
    async with _traffic(request).upload(record.id):
        try:
            arrived = await take_in(context.blobs, upload, offset, request.stream())
        except ClientDisconnect:
            # Nobody reads this answer; the line of log shall say that the upload is not over.
            arrived = offset
    complete = arrived == size
    response.status_code = 200 if complete else 202
    return UploadBody(offset=arrived, complete=complete)


@router.get(
    "/v0/runners/{runner}/jobs/{job}/output", operation_id="runner_job_output_get", openapi_extra=RUNNER_SECURITY
)
async def get_upload(
    *,
    request: Request,
    context: CurrentContext,
    runner: ResourceIdField,
    job: UuidField,
    lease: Lease,
    checksum: Checksum,
    size: Size,
) -> UploadBody:
    """View how far an upload is, to go on with it. The runner's key is the credential."""
    record = await runner_of(context, request, runner)
    upload = Upload(job=await _held_job(context, record.id, job, lease), checksum=checksum, size_bytes=size)
    arrived = await uploaded_bytes(context.blobs, upload)
    return UploadBody(offset=arrived, complete=await context.blobs.facts(upload.key) is not None)


@router.get(
    "/v0/projects/{project}/jobs/{job}/output",
    operation_id="proj_job_output_get",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": _EVENT}}}},
)
async def get_output(
    *,
    request: Request,
    context: CurrentContext,
    actor: CurrentActor,
    project: ResourceIdField,
    job: UuidField,
    follow: Annotated[Flag, Query(description="Whether to go on until the job ends.")] = "false",
    last_event_id: Annotated[str, Header(max_length=64, description="Id of the last event that was read.")] = "",
) -> StreamingResponse:
    """Stream the output of a job as server-sent events: `pending`, `output`, `phase`, `restart`, `end` with the status.

    As in the view of the job, output is for those who signed in.
    """
    async with context.store.read() as connection:
        record = await project_for(connection, actor, project, Permission.VIEW)
        found = await find_job(connection, job, project=record.id)
    if found is None:
        raise NotFound("job", job)
    if isinstance(actor, Anonymous):
        raise Unauthenticated("there is no credential", why="output is shown to those who signed in")
    follower = OutputFollower(context, job, follow=follow == "true", last_event_id=last_event_id)
    caller = caller_of(actor, "")
    _traffic(request).check_follower(caller)
    return _Followed(follower.events(), _traffic(request), caller)


class _Followed(StreamingResponse):
    """A stream that is counted while it is sent, and closed when its reader is gone."""

    def __init__(self, events: AsyncGenerator[bytes, None], traffic: _Traffic, caller: str) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._events = events
        self._traffic = traffic
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        with self._traffic.following(self._caller):
            try:
                await super().__call__(scope, receive, send)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._events.aclose()
