"""A session with a server: typed errors, bounded answers, retries and deadlines."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

import metalmark
from metalmark.client.answer import Answer, JsonValue, fault_text, parse_json, refusal
from metalmark.client.events import EventParser, ServerEvent
from metalmark.client.proxy import proxy_of
from metalmark.client.settings import ConnectionSettings
from metalmark.client.strict import check_shape
from metalmark.client.trust import tls_context, tls_failure
from metalmark.model import ProtocolError, ServerUnavailable, StableError
from metalmark.system import in_thread, sleep_s

if TYPE_CHECKING:
    import httpx

QueryValue = str | int | bool | None

INTERFACE_VERSION = "0.6.12"
"""Version of the interface that this client speaks, and that programs compare."""

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""The longest answer that is read: a job's output is the longest, and is bounded by the server to less."""

_STREAM_IDLE_S = 45.0
"""How long a stream of events may be silent."""

_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "PATCH", "OPTIONS"})
"""Methods that do the same when they are done twice. The second DELETE of a key is an error."""


class _Unfinished(Exception):
    """One attempt failed in a way that another may not."""

    def __init__(self, reason: str, *, asked_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.asked_s = asked_s


@dataclass(frozen=True, kw_only=True)
class ServerVersion:
    """What a server says of itself."""

    version: str
    """Version of the interface, which programs compare with their own."""
    metalmark: str | None
    """Version of the server, when it is one of Metalmark."""


class ServerSession:
    """Requests to one server. Made by `open_session`.

    Args:
        settings: Address, credential and patience.
        client: The HTTP client, with TLS set up.
        notify: Is told each failed attempt that will be repeated, one line each.
        sleep: How to wait between attempts.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        client: httpx.AsyncClient,
        *,
        notify: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = sleep_s,
    ) -> None:
        self.settings = settings
        self.shape: str | None = None
        """What answers from now on must look like, as `check_shape` takes it; None takes any JSON."""
        self._client = client
        self._notify = notify
        self._sleep = sleep

    async def version(self) -> ServerVersion:
        """Ask the server for its version. Needs no credential.

        Raises:
            MetalmarkError: As `call`; or the answer is not that of such a server.
        """
        answer = await self.call("GET", "server", "version")
        found = answer.value if isinstance(answer.value, Mapping) else {}
        version, own = found.get("version"), found.get("metalmark")
        if not isinstance(version, str):
            raise ProtocolError(
                f"{self.settings.address} does not say its version", hint="see whether --host names the server's API"
            )
        return ServerVersion(version=version, metalmark=own if isinstance(own, str) else None)

    async def call(
        self,
        method: str,
        *segments: str,
        query: Mapping[str, QueryValue] | None = None,
        body: JsonValue | None = None,
        content: bytes | None = None,
        repeatable: bool | None = None,
    ) -> Answer:
        """Send a request and return its answer; try again while that can help.

        Connection failures are retried when nothing of the request can have been done, others and server errors when
        doing it twice is the same as once; "busy" (503 with ``Retry-After``) always is. Nothing else is.

        Args:
            method: ``GET``, ``POST``, …
            segments: The path below ``/v0``, unquoted.
            query: Parameters; those that are None are left out.
            body: JSON to send; None sends none.
            content: Bytes to send in place of JSON.
            repeatable: Whether doing it twice is the same as once, where the method does not tell: a run that has an
                idempotency key.

        Raises:
            RequestRefused: The server answered 400 or more.
            ServerUnavailable: It could not be reached, or did not answer, in all attempts.
            ProtocolError: The answer is not JSON, or longer than `MAX_ANSWER_BYTES`.
            StableError: Its certificate is not trusted.
        """
        what = f"{method} {'/'.join(('', 'v0', *segments))}"
        patience = self.settings.patience
        for attempt in range(1, patience.attempts + 1):
            try:
                repeats = method in _REPEATABLE if repeatable is None else repeatable
                return await self._attempt(
                    method, segments, query or {}, body if content is None else content, what, repeatable=repeats
                )
            except _Unfinished as error:
                if attempt == patience.attempts:
                    raise self._unavailable(what, error.reason, attempts=attempt) from None
                wait_s = patience.wait_s(attempt, asked_s=error.asked_s)
                self._notify(f"{error.reason}; attempt {attempt} of {patience.attempts}, the next in {wait_s:g} s")
            await self._sleep(wait_s)
        raise AssertionError("at least one attempt is made")

    async def follow(
        self,
        *segments: str,
        on_event: Callable[[ServerEvent], Awaitable[bool]],
        query: Mapping[str, QueryValue] | None = None,
    ) -> None:
        """Read server-sent events until one is the last; go on where the stream broke off.

        Args:
            segments: The path below ``/v0``, unquoted.
            on_event: Takes each event once, and says whether it was the last. What comes waits for it.
            query: Parameters; those that are None are left out.

        Raises:
            MetalmarkError: As `call`; attempts are counted from the last event on.
        """
        what = f"GET {'/'.join(('', 'v0', *segments))}"
        patience = self.settings.patience
        last_id, failures = "", 0

        async def take(event: ServerEvent) -> bool:
            nonlocal last_id, failures
            last_id, failures = event.id or last_id, 0
            return await on_event(event)

        while True:
            parser = EventParser()
            reason, asked_s = f"{self.settings.address} ended the stream", None
            try:
                async with self._events(segments, query or {}, last_id, what) as pieces:
                    async for piece in pieces:
                        for event in parser.feed(piece):
                            if await take(event):
                                return
            except _Unfinished as error:
                reason, asked_s = error.reason, error.asked_s
            failures += 1
            if failures >= patience.attempts:
                raise self._unavailable(what, reason, attempts=failures)
            wait_s = patience.wait_s(failures, asked_s=asked_s or parser.retry_s)
            self._notify(f"{reason}; going on in {wait_s:g} s")
            await self._sleep(wait_s)

    @asynccontextmanager
    async def _events(
        self, segments: tuple[str, ...], query: Mapping[str, QueryValue], last_id: str, what: str
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a stream of events and yield its bytes."""
        request = self._request("GET", segments, query, None)
        request.headers["Accept"] = "text/event-stream"
        # A server says that it is alive more often than that; a connection that is half open says nothing.
        timeouts = request.extensions["timeout"]
        request.extensions["timeout"] = {**timeouts, "read": min(timeouts["read"], _STREAM_IDLE_S)}
        if last_id:
            request.headers["Last-Event-ID"] = last_id
        async with self._failures_told(repeatable=True, what=what):
            response = await self._client.send(request, stream=True)
            try:
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if response.status_code != 200 or kind != "text/event-stream":
                    await self._read(response, what, repeatable=True)
                    raise ProtocolError(f"the answer to {what} is {kind or 'of no type'}, and no stream of events")
                yield response.aiter_bytes()
            finally:
                await response.aclose()

    async def _attempt(
        self,
        method: str,
        segments: tuple[str, ...],
        query: Mapping[str, QueryValue],
        body: JsonValue | bytes | None,
        what: str,
        *,
        repeatable: bool,
    ) -> Answer:
        answer: Answer | None = None
        request = self._request(method, segments, query, body)
        with anyio.move_on_after(self.settings.patience.answer_s):
            async with self._failures_told(repeatable=repeatable, what=what):
                response = await self._client.send(request, stream=True)
                try:
                    answer = await self._read(response, what, repeatable=repeatable)
                finally:
                    await response.aclose()
        if answer is None:
            reason = f"no whole answer within {self.settings.patience.answer_s:g} s"
            if repeatable:
                raise _Unfinished(reason)
            raise self._unavailable(what, reason, attempts=1)
        return answer

    def _request(
        self, method: str, segments: tuple[str, ...], query: Mapping[str, QueryValue], body: JsonValue | bytes | None
    ) -> httpx.Request:
        credential = self.settings.credential
        headers = {"Authorization": credential.header} if credential else {}
        return self._client.build_request(
            method,
            self.settings.address.url(*segments),
            params={name: _query_text(value) for name, value in query.items() if value is not None},
            headers=headers,
            content=body if isinstance(body, bytes) else None,
            json=None if isinstance(body, bytes) else body,
        )

    @asynccontextmanager
    async def _failures_told(self, *, repeatable: bool, what: str) -> AsyncIterator[None]:
        """Turn the HTTP library's errors into ours."""
        import httpx  # noqa: PLC0415 - heavy, and loaded already when there is a client

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            if (found := tls_failure(error)) is not None:
                raise self._untrusted(found) from None
            raise _Unfinished(f"{self.settings.address} cannot be reached: {_reason(error)}") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = f"{self.settings.address} broke off: {_reason(error)}"
            if repeatable:
                raise _Unfinished(reason) from None
            raise self._unavailable(what, reason, attempts=1) from None

    async def _read(self, response: httpx.Response, what: str, *, repeatable: bool) -> Answer:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise ProtocolError(f"the answer to {what} is longer than {MAX_ANSWER_BYTES} bytes")
        status, headers = response.status_code, response.headers
        request_id = headers.get("x-request-id", "")
        if 300 <= status < 400:
            raise ProtocolError(
                f"{self.settings.address} answers with a redirection",
                why="a credential is not carried to where an answer points",
                hint="name the server itself with --host",
            )
        if status >= 500:
            reason = fault_text(status, bytes(body), header_request_id=request_id)
            asked_s = _retry_after_s(headers.get("retry-after", ""))
            busy = status == 503 and asked_s is not None
            if repeatable or busy:
                raise _Unfinished(reason, asked_s=asked_s)
            raise self._unavailable(what, reason, attempts=1)
        if status >= 400:
            raise refusal(
                status,
                bytes(body),
                what=what,
                header_request_id=request_id,
                with_credential=self.settings.credential is not None,
            )
        total = headers.get("x-total-count", "")
        value = parse_json(bytes(body), what=what)
        if self.shape is not None:
            check_shape(value, self.shape)
        return Answer(
            status=status,
            value=value,
            total=int(total) if total.isascii() and total.isdigit() and len(total) < 20 else None,
            request_id=request_id,
        )

    def _unavailable(self, what: str, reason: str, *, attempts: int) -> ServerUnavailable:
        address = self.settings.address
        hint = "see whether it runs: metalmark server up" if address.is_local else "see whether --host is right"
        if attempts == 1:
            return ServerUnavailable(reason, why=f"{what} has no answer", hint=hint)
        return ServerUnavailable(reason, why=f"{what} has no answer after {attempts} attempts", hint=hint)

    def _untrusted(self, error: ssl.SSLError) -> StableError:
        address = self.settings.address
        if isinstance(error, ssl.SSLCertVerificationError):
            return StableError(
                f"the certificate of {address} is not trusted: {getattr(error, 'verify_message', error)}",
                why="somebody else may answer in its place",
                hint="name the authority that signed it with --ca-file",
            )
        return StableError(
            f"{address} does not speak TLS as expected: {error.reason or error}",
            hint="use http:// if the server has no certificate, and only on a network that you trust",
        )


@asynccontextmanager
async def open_session(
    settings: ConnectionSettings,
    *,
    environment: Mapping[str, str],
    notify: Callable[[str], None],
    transport: httpx.AsyncBaseTransport | None = None,
    sleep: Callable[[float], Awaitable[None]] = sleep_s,
) -> AsyncIterator[ServerSession]:
    """Open a session; nothing is sent yet.

    Args:
        settings: How to speak to the server.
        environment: Where ``SSL_CERT_FILE`` is read.
        notify: Is told what a person should know while waiting, one line each.
        transport: Instead of the network, for tests.
        sleep: How to wait between attempts.

    Raises:
        InputError: A file of certificates or the proxy cannot be used.
    """
    import httpx  # noqa: PLC0415 - heavy; importing this module costs nothing

    patience = settings.patience
    context = await in_thread(tls_context, settings.trust, environment) if settings.address.scheme == "https" else False
    async with httpx.AsyncClient(
        verify=context,
        transport=transport,
        proxy=None if transport else proxy_of(settings),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(patience.answer_s, connect=patience.connect_s, pool=None),
        headers={"User-Agent": f"metalmark/{metalmark.__version__}", "Accept-Encoding": "identity"},
    ) as client:
        yield ServerSession(settings, client, notify=notify, sleep=sleep)


def _query_text(value: QueryValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _retry_after_s(text: str) -> float | None:
    # A date is allowed there too; none of the servers that are meant sends one.
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
