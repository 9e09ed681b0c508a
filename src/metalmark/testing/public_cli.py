"""A scripted stand-in of the public CLI: the requests it makes, in its order, with its retries and its strict decoding.

It does what that program does on the wire and nothing else: it asks for the server's version before every request,
retries network errors and answers of 500 and above with doubling waits, never retries 4xx, decodes each answer by its
shape, and after a remote run polls the job until it is over and fetches the report.
"""

from __future__ import annotations

import platform
import ssl
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from metalmark.testing import public_shapes as shapes
from metalmark.testing.public_calls import PUBLIC_CALLS, PublicCall

__all__ = ["PublicCli", "PublicCliFailure", "RemoteRun", "SentRequest"]

S = TypeVar("S", bound=BaseModel)
FINAL = {"processed", "failed", "canceled"}


class PublicCliFailure(Exception):
    """The CLI would end with status 1 here.

    Attributes:
        status: of the answer, or none where there was no answer or it could not be decoded.
        error: the decoded error body, when there was one.
    """

    def __init__(self, text: str, *, status: int | None = None, error: shapes.ErrorBody | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.error = error


@dataclass(frozen=True, kw_only=True)
class SentRequest:
    """A request as it was sent, and the status it got (0 for none)."""

    method: str
    path: str
    status: int


@dataclass(frozen=True, kw_only=True)
class RemoteRun:
    """What became of a remote run."""

    submitted: shapes.Report
    job: shapes.Job | None
    report: shapes.Report
    statuses: tuple[str, ...]
    """Each status once, in the order in which polling saw it."""


@dataclass(kw_only=True)
class PublicCli:
    """One configured public CLI.

    Args:
        host: base URL of the server.
        credential: user key, project key or token; none for public commands.
        sleep: waits for so many seconds; a test passes one that only counts.
        attempts: how often a request is tried in all.
        strict: whether an answer of another shape is an error, as with ``--strict``; else any JSON is accepted.
    """

    host: str
    credential: str | None = None
    sleep: Callable[[float], None]
    attempts: int = 35
    retry_after_s: float = 1
    max_retry_after_s: float = 30
    connect_timeout_s: float = 15
    strict: bool = True
    sent: list[SentRequest] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def invoke(
        self,
        command: str,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str | int | bool] | None = None,
        **path: str,
    ) -> object:
        """Carry out one command and return its decoded answer.

        Args:
            command: the words of the command, a key of :data:`PUBLIC_CALLS`.
            body: JSON body; commands without one send none.
            query: query parameters.
            path: values of the path's parameters.

        Raises:
            PublicCliFailure: where the program would print an error and end with 1.
        """
        call = PUBLIC_CALLS[command]
        if call.needs_credential and self.credential is None:
            message = f"{command} needs a credential"
            raise PublicCliFailure(message)
        self._ask_version()
        filled = call.path.format(**{name: quote(value, safe="") for name, value in path.items()})
        return self._decoded(call, self._send(call.method, filled, body=body, query=query))

    def expect(self, shape: type[S], command: str, **values: object) -> S:
        """:meth:`invoke`, where the answer has to be of this shape."""
        answer = self.invoke(command, **values)  # type: ignore[arg-type]  # the caller's values, passed on as they are
        assert isinstance(answer, shape), answer
        return answer

    def run_remote(
        self,
        *,
        image: str,
        project: str | None = None,
        job: Mapping[str, object] | None = None,
        context: Mapping[str, str] | None = None,
        poll_interval_s: float = 5,
        detach: bool = False,
        **fields: object,
    ) -> RemoteRun:
        """``run --image``: submit, poll the job until it is over, fetch the report, ask where the console is.

        Args:
            image: image reference.
            project: slug or identifier; none lets the server derive it.
            job: more fields of the job object.
            context: where the run happens, as ``bencher.dev/v0/…`` keys.
            poll_interval_s: wait before each look at the job.
            detach: whether to return at once.
            fields: more top-level fields of the request.

        Raises:
            PublicCliFailure: as :meth:`invoke`, and when the job is not over after twice its time-out.
        """
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        body: dict[str, object] = {
            "start_time": now,
            "end_time": now,
            "results": [],
            "settings": {"adapter": "magic"},
            "context": dict(context or {"bencher.dev/v0/testbed/os": platform.system()}),
            "idempotency_key": str(uuid.uuid4()),
            "job": {"image": image, "iter": 1, **(job or {})},
            **fields,
        }
        if project is not None:
            body["project"] = project
        submitted = self.expect(shapes.Report, "run", body=body)
        if submitted.job is None or detach:
            return RemoteRun(submitted=submitted, job=None, report=submitted, statuses=())
        timeout_s = (job or {}).get("timeout", 3600)
        assert isinstance(timeout_s, int)
        last, statuses = self._poll(submitted.project.slug, submitted.job, poll_interval_s, 2 * timeout_s)
        report = self.expect(shapes.Report, "report view", project=submitted.project.slug, report=submitted.uuid)
        self.expect(shapes.Console, "server config console")
        return RemoteRun(submitted=submitted, job=last, report=report, statuses=statuses)

    def _poll(self, project: str, job: str, interval_s: float, limit_s: float) -> tuple[shapes.Job, tuple[str, ...]]:
        statuses: list[str] = []
        waited_s = 0.0
        while waited_s <= limit_s:
            self.sleep(interval_s)
            waited_s += interval_s
            seen = self.expect(shapes.Job, "job view", project=project, job=job)
            if not statuses or statuses[-1] != seen.status:
                statuses.append(seen.status)
            if seen.status in FINAL:
                return seen, tuple(statuses)
        message = f"job {job} is not over after {limit_s} s: {statuses}"
        raise PublicCliFailure(message)

    def _ask_version(self) -> None:
        answer = self._send("GET", "/v0/server/version")
        decoded = self._decoded(PUBLIC_CALLS["server version"], answer)
        assert isinstance(decoded, shapes.ApiVersion)
        if decoded.version != shapes.PUBLIC_VERSION:
            self.warnings.append(f"the server's version is {decoded.version}")

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str | int | bool] | None = None,
    ) -> httpx.Response:
        """One request, tried again after network errors and answers of 500 and above."""
        wait_s = self.retry_after_s
        failed = "no attempt"
        for attempt in range(self.attempts):
            if attempt:
                self.sleep(min(wait_s, self.max_retry_after_s))
                wait_s *= 2
            try:
                answer = self._once(method, path, body, query)
            except httpx.TransportError as error:
                self.sent.append(SentRequest(method=method, path=path, status=0))
                failed = repr(error)
                continue
            self.sent.append(SentRequest(method=method, path=path, status=answer.status_code))
            if answer.status_code < 500:
                return answer
            failed = f"{answer.status_code} {answer.text}"
        message = f"{method} {path} failed {self.attempts} times, at last with {failed}"
        raise PublicCliFailure(message)

    def _once(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        query: Mapping[str, str | int | bool] | None,
    ) -> httpx.Response:
        headers = {"accept": "application/json"}
        if self.credential is not None:
            headers["authorization"] = f"Bearer {self.credential}"
        timeout = httpx.Timeout(60, connect=self.connect_timeout_s)
        # A connection of its own for every request, as the program makes a client for each of them.
        with httpx.Client(
            base_url=self.host, headers=headers, timeout=timeout, trust_env=False, verify=_trust()
        ) as client:
            return client.request(method, path, json=body, params=query)

    def _decoded(self, call: PublicCall, answer: httpx.Response) -> object:
        if answer.status_code >= 400:
            try:
                error = shapes.ErrorBody.model_validate_json(answer.content)
            except ValidationError as invalid:
                message = f"{call.method} {call.path}: {answer.status_code} without an error body: {answer.text!r}"
                raise PublicCliFailure(message) from invalid
            message = f"{call.method} {call.path}: {answer.status_code} {error.message}"
            raise PublicCliFailure(message, status=answer.status_code, error=error)
        if not answer.content:
            return None
        if call.shape is None:
            return _json(answer)
        try:
            return call.shape.model_validate_json(answer.content)
        except ValidationError as invalid:
            if not self.strict:
                return _json(answer)
            message = f"{call.method} {call.path}: the answer does not decode: {invalid}\n{answer.text}"
            raise PublicCliFailure(message) from invalid


@cache
def _trust() -> ssl.SSLContext:
    """The machine's own certificate authorities; reading them takes longer than a request."""
    return ssl.create_default_context()


def _json(answer: httpx.Response) -> object:
    """Any JSON."""
    decoded: object = answer.json()
    return decoded
