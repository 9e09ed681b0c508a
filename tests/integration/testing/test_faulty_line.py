from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from metalmark.testing.faulty_line import FaultyLine, Line


def answer(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(1000):
            connection.sendall(data.upper())


@pytest.fixture
def line() -> Iterator[FaultyLine]:
    """A line to a server that says everything again in capitals."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    with FaultyLine(listener.getsockname()[1]) as made:
        yield made
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    server.join(5)


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(1000)


@pytest.mark.parametrize("state", [Line.STALLED, Line.DEAF_SERVER, Line.DEAF_CLIENT])
def test_what_was_held_moves_on_later(line: FaultyLine, state: Line) -> None:
    with socket.create_connection(("127.0.0.1", line.port), timeout=5) as client:
        assert ask(client, b"a") == b"A"
        line.become(state)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ask(client, b"b")
        line.become(Line.WORKS)
        client.settimeout(5)
        assert client.recv(1000) == b"B"


def test_connections_are_reset_and_new_ones_work(line: FaultyLine) -> None:
    with socket.create_connection(("127.0.0.1", line.port), timeout=5) as client:
        assert ask(client, b"a") == b"A"
        assert line.reset() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1000)
    with socket.create_connection(("127.0.0.1", line.port), timeout=5) as client:
        assert ask(client, b"b") == b"B"
    assert line.connections == 2


def test_a_line_that_is_cut_takes_no_connection(line: FaultyLine) -> None:
    line.become(Line.CUT)
    with (
        pytest.raises((ConnectionResetError, BrokenPipeError)),
        socket.create_connection(("127.0.0.1", line.port), timeout=5) as client,
    ):
        ask(client, b"a")
    line.become(Line.WORKS)
    with socket.create_connection(("127.0.0.1", line.port), timeout=5) as client:
        assert ask(client, b"b") == b"B"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1000) == b"", "an end is passed on"
