"""A server from its first start to its end, over real sockets."""

from __future__ import annotations

from pathlib import Path

from metalmark.testing.running_server import running_server


def test_the_first_start_makes_an_administrator_and_a_later_one_does_not(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        with server.client() as client:
            assert client.get("/v0/server/config").status_code == 200
        with server.client(None) as client:
            assert client.get("/v0/server/config").status_code == 401
        key = server.admin_key
    with running_server(tmp_path / "server") as server, server.client(key) as client:
        assert client.get("/v0/server/config").json()["security"]["secret_key"] == "********"
