from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import anyio
import httpx
import pytest

from metalmark.client import (
    Answer,
    ConnectionSettings,
    Patience,
    ServerAddress,
    ServerEvent,
    ServerSession,
    open_session,
    parse_key,
)
from metalmark.client import session as session_module
from metalmark.model import ProtocolError, RequestRefused, ServerUnavailable, StableError

KEY = "bencher_user_0123456789abcdefghijABCDEFGHIJ"
Reply = httpx.Response | Exception

pytestmark = pytest.mark.anyio


@dataclass
class Server:
    """Answers with its replies, one after the other, and keeps what it was asked and how long it was let alone."""

    replies: list[Reply]
    asked: list[httpx.Request] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def wait(self, seconds: float) -> None:
        self.waited.append(seconds)

    async def call(
        self, use: Callable[[ServerSession], object], *, settings: ConnectionSettings | None = None
    ) -> Answer:
        address = ServerAddress.parse("http://localhost:6610/api")
        async with open_session(
            settings or ConnectionSettings(address=address, credential=parse_key(KEY, source="--key")),
            environment={},
            notify=self.told.append,
            transport=httpx.MockTransport(self),
            sleep=self.wait,
        ) as session:
            answer = await use(session)  # type: ignore[misc]  # each test's own coroutine
            assert isinstance(answer, Answer)
            return answer


def get(session: ServerSession) -> object:
    return session.call("GET", "runners", "a/b", query={"archived": True, "page": None, "per_page": 3})


def post(session: ServerSession) -> object:
    return session.call("POST", "runners", body={"name": "ü"})


async def test_request_and_answer() -> None:
    server = Server([httpx.Response(200, json=[1], headers={"x-total-count": "9", "x-request-id": "r"})])
    answer = await server.call(get)
    [request] = server.asked
    assert str(request.url) == "http://localhost:6610/api/v0/runners/a%2Fb?archived=true&per_page=3"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert answer == Answer(status=200, value=[1], total=9, request_id="r")


async def test_body_is_json_and_an_empty_answer_is_none() -> None:
    server = Server([httpx.Response(204, headers={"x-total-count": "many"})])
    answer = await server.call(post)
    [request] = server.asked
    assert (request.headers["content-type"], request.content.decode()) == ("application/json", '{"name":"ü"}')
    assert (answer.value, answer.total) == (None, None)


async def test_without_credential_there_is_no_header() -> None:
    server = Server([httpx.Response(200, json={})])
    await server.call(get, settings=ConnectionSettings(address=ServerAddress.parse("http://x")))
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize("use", [get, post])
async def test_connection_that_was_not_made_is_tried_again(use: Callable[[ServerSession], object]) -> None:
    server = Server([httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.Response(200, json={})])
    await server.call(use)
    assert server.waited == [1, 2]
    assert "attempt 1 of 8" in server.told[0]


async def test_answer_that_is_packed_wrongly_is_one_that_broke_off() -> None:
    broken = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip"))
    with pytest.raises(ServerUnavailable, match="broke off"):
        await Server([broken]).call(post)


@pytest.mark.parametrize(
    "failure", [httpx.ReadError("reset"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut")],
    ids=lambda failure: type(failure).__name__,
)  # fmt: skip
async def test_only_what_can_be_done_twice_is_repeated_when_an_answer_breaks_off(failure: Exception) -> None:
    server = Server([failure, httpx.Response(200, json={})])
    await server.call(get)
    assert len(server.asked) == 2
    server = Server([failure, httpx.Response(201, json={})])
    with pytest.raises(ServerUnavailable):
        await server.call(post)
    assert len(server.asked) == 1


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_busy_server_did_nothing_so_all_is_repeated_no_sooner_than_it_asks(method: str) -> None:
    server = Server([httpx.Response(503, headers={"retry-after": "5"}), httpx.Response(200, json={})])
    await server.call(lambda session: session.call(method, "runners"))
    assert server.waited == [5]


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_server_error_ends_a_post_with_its_words(status: int) -> None:
    server = Server([httpx.Response(status, json={"request_id": "r-7", "message": "broken"})])
    with pytest.raises(ServerUnavailable, match=f"{status}: broken .request r-7"):
        await server.call(post)
    assert server.waited == []


@pytest.mark.parametrize("status", [400, 401, 404, 409, 429])
async def test_refusal_is_never_repeated(status: int) -> None:
    server = Server([httpx.Response(status, json={"request_id": "r", "message": "no"})])
    with pytest.raises(RequestRefused) as caught:
        await server.call(get)
    assert (caught.value.status, len(server.asked)) == (status, 1)
    assert KEY not in str(caught.value)


async def test_attempts_have_an_end() -> None:
    server = Server([httpx.ConnectError("refused")] * 3)
    settings = ConnectionSettings(address=ServerAddress.parse("http://x"), patience=Patience(attempts=3))
    with pytest.raises(ServerUnavailable, match="after 3 attempts"):
        await server.call(get, settings=settings)
    assert (server.waited, server.replies) == ([1, 2], [])


async def test_certificate_that_is_not_trusted_is_no_matter_of_patience() -> None:
    failure = httpx.ConnectError("tls")
    failure.__cause__ = ssl.SSLCertVerificationError("self-signed")
    server = Server([failure])
    with pytest.raises(StableError, match="not trusted") as caught:
        await server.call(get)
    assert "--ca-file" in caught.value.hint


async def test_redirection_is_not_followed() -> None:
    server = Server([httpx.Response(302, headers={"location": "http://evil/"})])
    with pytest.raises(ProtocolError, match="redirection"):
        await server.call(get)
    assert len(server.asked) == 1


async def test_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_ANSWER_BYTES", 100)
    server = Server([httpx.Response(200, content=b" " * 101)])
    with pytest.raises(ProtocolError, match="longer than 100"):
        await server.call(get)


async def test_answer_that_drips_has_a_deadline() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await anyio.lowlevel.checkpoint()

    server = Server([httpx.Response(200, content=drip()), httpx.Response(200, json={})])
    settings = ConnectionSettings(address=ServerAddress.parse("http://x"), patience=Patience(answer_s=0.05))
    await server.call(get, settings=settings)
    assert "no whole answer within 0.05 s" in server.told[0]


@pytest.mark.parametrize(
    ("found", "version", "own"),
    [({"version": "0.6.12", "metalmark": "1.2"}, "0.6.12", "1.2"), ({"version": "0.7"}, "0.7", None)],
)
async def test_version(found: dict[str, str], version: str, own: str | None) -> None:
    server = Server([httpx.Response(200, json=found)])

    async def use(session: ServerSession) -> Answer:
        told = await session.version()
        assert (told.version, told.metalmark) == (version, own)
        return Answer(status=200, value=None)

    await server.call(use)
    assert server.asked[0].url.path == "/api/v0/server/version"


@pytest.mark.parametrize("found", [[], {"version": 6}, "x"])
async def test_what_says_no_version_is_no_server(found: object) -> None:
    server = Server([httpx.Response(200, json=found)])
    with pytest.raises(ProtocolError, match="version"):
        await server.call(lambda session: session.version())


def stream(text: str) -> httpx.Response:
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream; charset=utf-8"})


async def follow(server: Server, *, attempts: int = 3) -> list[str]:
    seen: list[str] = []

    async def take(event: ServerEvent) -> bool:
        seen.append(event.data)
        return event.kind == "end"

    async def use(session: ServerSession) -> Answer:
        await session.follow("x", on_event=take, query={"follow": True})
        return Answer(status=200, value=None)

    settings = ConnectionSettings(address=ServerAddress.parse("http://x"), patience=Patience(attempts=attempts))
    await server.call(use, settings=settings)
    return seen


async def test_stream_goes_on_after_its_last_event() -> None:
    server = Server(
        [
            stream("id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: cut"),
            httpx.ConnectError("refused"),
            httpx.Response(503, headers={"retry-after": "4"}),
            stream("retry: 9000\nid: 3\ndata: c\n\n"),
            stream("event: end\ndata: e\n\n"),
        ]
    )
    assert await follow(server, attempts=4) == ["a", "b", "c", "e"]
    assert [request.headers.get("last-event-id") for request in server.asked] == [None, "2", "2", "2", "3"]
    assert server.waited == [1, 2, 4, 9]
    assert server.asked[0].url.params["follow"] == "true"


async def test_stream_that_never_comes_has_an_end() -> None:
    server = Server([httpx.ConnectError("refused")] * 3)
    with pytest.raises(ServerUnavailable, match="after 3 attempts"):
        await follow(server)


@pytest.mark.parametrize(
    ("reply", "error"),
    [(httpx.Response(200, json={}), ProtocolError), (httpx.Response(404, json={}), RequestRefused)],
)
async def test_what_is_no_stream(reply: httpx.Response, error: type[Exception]) -> None:
    with pytest.raises(error):
        await follow(Server([reply]))
