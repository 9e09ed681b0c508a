"""The WebSocket of a runner over real sockets: TLS, proxies, deadlines, and a key that nobody sees."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import ServerConnection, serve

from metalmark.client import ChannelDeadlines, ConnectionSettings, ServerAddress, Trust, open_channel, parse_runner_key
from metalmark.model import ChannelLost, ChannelRefused

pytestmark = pytest.mark.anyio
KEY = "bencher_runner_0123456789abcdefghijABCDEFGHIJ"
HASTY = ChannelDeadlines(open_s=1, send_s=0.5, ping_every_s=0.1, ping_within_s=0.3, close_s=0.3)
Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler, **options: Any) -> AsyncIterator[int]:
    defaults: dict[str, Any] = {"compression": None, "ping_interval": None, "close_timeout": 0.1}
    async with serve(handler, "127.0.0.1", 0, **{**defaults, **options}) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@asynccontextmanager
async def plain(handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """A server of bytes."""
    open_writers: list[asyncio.StreamWriter] = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.append(writer)
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in open_writers:
            writer.close()
        await asyncio.sleep(0)


def settings(port: int, *, scheme: str = "http", host: str = "127.0.0.1", **values: Any) -> ConnectionSettings:
    return ConnectionSettings(
        address=ServerAddress.parse(f"{scheme}://{host}:{port}"),
        credential=parse_runner_key(KEY, source="test"),
        **values,
    )


def connect(
    port: int, *, deadlines: ChannelDeadlines = HASTY, subprotocols: tuple[str, ...] = (), **values: Any
) -> Any:
    return open_channel(
        settings(port, **values), "rack 7", subprotocols=subprotocols, environment={}, deadlines=deadlines
    )


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def test_texts_go_both_ways_and_others_are_passed_over() -> None:
    seen: list[Any] = []

    async def handler(socket: ServerConnection) -> None:
        seen.append(socket.request)
        await socket.send(b"binary")
        await echo(socket)

    async with listening(handler) as port, connect(port) as channel:
        assert channel.subprotocol is None
        await channel.send("hello")
        assert await channel.receive() == "hello"
        assert channel.heard
    request = seen[0]
    assert request.path == "/v0/runners/rack%207/channel"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["User-Agent"].startswith("metalmark/")
    assert "Sec-WebSocket-Extensions" not in request.headers


async def test_subprotocol_is_what_the_server_agrees_on() -> None:
    async with listening(echo, subprotocols=["metalmark.1"]) as port:
        async with connect(port, subprotocols=("metalmark.2", "metalmark.1")) as channel:
            assert channel.subprotocol == "metalmark.1"
    async with listening(echo) as port, connect(port, subprotocols=("metalmark.1",)) as channel:
        assert channel.subprotocol is None


async def test_key_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with listening(echo) as port, connect(port) as channel:
        await channel.send("hello")
        await channel.receive()
    # The server of this test logs what it receives, as its operator may want.
    mine = [record for record in caplog.records if record.name != "websockets.server"]
    assert KEY not in "".join(record.getMessage() for record in mine)


async def test_close_of_the_server_has_its_code_and_reason() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.close(1001, "server shutting down")

    async with listening(handler) as port, connect(port) as channel:
        with pytest.raises(ChannelLost, match=r"1001 \(server shutting down\)") as caught:
            await channel.receive()
        assert caught.value.code == 1001
        with pytest.raises(ChannelLost):
            await channel.send("more")


async def test_connection_that_breaks_is_lost() -> None:
    async def handler(socket: ServerConnection) -> None:
        socket.transport.abort()

    async with listening(handler) as port, connect(port) as channel:
        with pytest.raises(ChannelLost) as caught:
            await channel.receive()
        assert caught.value.code == 1006


async def test_peer_that_answers_no_ping_is_lost() -> None:
    async def handler(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await asyncio.sleep(1.5)

    async with listening(handler) as port:
        with anyio.fail_after(4):
            async with connect(port) as channel:
                with pytest.raises(ChannelLost, match="ping"):
                    await channel.receive()


async def test_peer_that_reads_nothing_is_lost() -> None:
    async def handler(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await asyncio.sleep(1.5)

    patient = ChannelDeadlines(open_s=1, send_s=0.3, ping_every_s=60, ping_within_s=60, close_s=0.3)
    async with listening(handler) as port:
        with anyio.fail_after(4):
            async with connect(port, deadlines=patient) as channel:
                with pytest.raises(ChannelLost, match="took nothing"):
                    for _ in range(64):
                        await channel.send("x" * 1_000_000)


async def test_message_without_bounds_is_refused() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.send("x" * (8 * 1024 * 1024 + 1))
        await asyncio.sleep(1.5)

    async with listening(handler) as port, connect(port) as channel:
        with pytest.raises(ChannelLost):
            await channel.receive()


async def test_server_that_answers_no_handshake_is_left() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.5)

    async with plain(handler) as port:
        with pytest.raises(ChannelLost, match="within 1 s"):
            async with connect(port):
                pass


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
async def test_what_is_no_websocket(answer: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()

    async with plain(handler) as port:
        with pytest.raises((ChannelLost, ChannelRefused)):
            async with connect(port):
                pass


async def test_nobody_listens() -> None:
    async with listening(echo) as port:
        pass
    with pytest.raises(ChannelLost, match="cannot be reached"):
        async with connect(port):
            pass


def _certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server under test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


async def test_certificate_has_to_be_trusted(tmp_path: Path) -> None:
    certificate = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with listening(echo, ssl=context) as port:
        with pytest.raises(ChannelRefused, match="not trusted") as caught:
            async with connect(port, scheme="https"):
                pass
        assert "--ca-file" in caught.value.hint
        for trust in (Trust(ca_file=certificate), Trust(insecure=True)):
            async with connect(port, scheme="https", trust=trust) as channel:
                await channel.send("hello")
                assert await channel.receive() == "hello"


async def test_proxy_is_used_and_never_sees_the_key() -> None:
    heads: list[bytes] = []

    async with listening(echo) as port:

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

            async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
                target.close()

            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer), return_exceptions=True)

        async with plain(handler) as proxy:
            proxies = {"all_proxy": f"http://user:secret@127.0.0.1:{proxy}"}
            async with connect(80, host="bench.example.com", proxies=proxies) as channel:
                await channel.send("hello")
                assert await channel.receive() == "hello"
    assert heads[0].startswith(b"CONNECT bench.example.com:80 HTTP/1.1")
    assert b"Proxy-Authorization: Basic" in heads[0]
    assert KEY.encode() not in heads[0]


async def test_proxy_that_refuses_is_no_server_that_refuses() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with plain(handler) as proxy:
        proxies = {"http_proxy": f"http://user:secret@127.0.0.1:{proxy}"}
        with pytest.raises(ChannelLost, match="proxy") as caught:
            async with connect(80, host="bench.example.com", proxies=proxies):
                pass
    assert "secret" not in str(caught.value)
