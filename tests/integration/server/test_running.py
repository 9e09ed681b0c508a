"""A server from its first start to its end, over real sockets, on both engines."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from metalmark.model import StableError, StoreAway
from metalmark.testing.raw_channel import HandshakeRefused, RawChannel
from metalmark.testing.running_server import running_server


def test_the_first_start_makes_an_administrator_and_a_later_one_does_not(tmp_path: Path, database_url: str) -> None:
    with running_server(tmp_path / "server", database=database_url) as server:
        with server.client() as client:
            assert client.get("/v0/server/config").status_code == 200
        with server.client(None) as client:
            assert client.get("/v0/server/config").status_code == 401
        key = server.admin_key
    with running_server(tmp_path / "server", database=database_url) as server, server.client(key) as client:
        shown = client.get("/v0/server/config").json()
        assert shown["security"]["secret_key"] == "********"
        users = client.get("/v0/users")
        assert users.headers["x-total-count"] == "1"


def test_a_server_tells_about_itself(tmp_path: Path, database_url: str) -> None:
    with running_server(tmp_path / "server", database=database_url) as server, server.client() as client:
        assert client.get("/").json() is None
        assert client.get("/v0/server/version").json()["version"] == "0.6.12"
        assert client.get("/v0/server/config/console").json() == {"url": f"http://localhost:{server.url[17:]}/"}
        stats = client.get("/v0/server/stats").json()
        assert stats["users"] == {"week": 1, "month": 1, "total": 1}
        assert stats["jobs"] == {"pending": 0, "claimed": 0, "running": 0}
        assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
        metrics = client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert 'metalmark_jobs{status="pending"} 0.0' in metrics.text
        document = client.get("/v0/server/spec").json()
        assert document["info"]["version"] == "0.6.12"


def test_who_is_over_a_rate_limit_is_told_when_to_come_back(tmp_path: Path) -> None:
    settings = {"limits": {"sign_in_attempts": 3, "user_requests": 5, "address_requests": 4}}
    with running_server(tmp_path / "server", settings=settings) as server:
        with server.client("bencher_user_" + "0" * 30) as client:
            statuses = [client.get("/v0/projects").status_code for _ in range(4)]
            assert statuses == [401, 401, 401, 429]
        with server.client(None) as client:
            answers = [client.get("/v0/projects") for _ in range(5)]
            assert [answer.status_code for answer in answers] == [200] * 4 + [429]
            assert 1 <= int(answers[-1].headers["retry-after"]) <= 15
            assert client.get("/v0/server/version").status_code == 200
        with server.client() as client:
            assert [client.get("/v0/projects").status_code for _ in range(6)] == [200] * 5 + [429]


def test_metrics_are_for_those_who_may_read_them(tmp_path: Path) -> None:
    settings = {"metrics": {"allowed": ["192.0.2.0/24"]}}
    with running_server(tmp_path / "server", settings=settings) as server, server.client() as client:
        assert client.get("/metrics").status_code == 403


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_metrics_are_not_for_whoever_comes_through_a_proxy_that_nobody_trusts(tmp_path: Path, header: str) -> None:
    passed_on = {header: "127.0.0.1"}
    with running_server(tmp_path / "server") as server, server.client() as client:
        assert client.get("/metrics").status_code == 200
        refused = client.get("/metrics", headers=passed_on)
        assert refused.status_code == 403 and "server.trusted_proxies" in refused.json()["message"]


def test_metrics_through_a_trusted_proxy_are_for_the_client_that_it_names(tmp_path: Path) -> None:
    settings = {"server": {"trusted_proxies": ["127.0.0.1/32"]}, "metrics": {"allowed": ["192.0.2.0/24"]}}
    with running_server(tmp_path / "server", settings=settings) as server, server.client() as client:
        assert client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.7"}).status_code == 200
        assert client.get("/metrics", headers={"X-Forwarded-For": "198.51.100.7"}).status_code == 403
        assert client.get("/metrics", headers={"Forwarded": "for=192.0.2.7"}).status_code == 403
    open_to_all = {"metrics": {"allowed": ["0.0.0.0/0"]}}
    with running_server(tmp_path / "open", settings=open_to_all) as server, server.client() as client:
        assert client.get("/metrics", headers={"X-Forwarded-For": "198.51.100.7"}).status_code == 200


def test_a_running_server_is_backed_up_on_request(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server, server.client() as client:
        assert client.post("/v0/server/backup", json={}).status_code == 201
        assert client.post("/v0/server/backup", json={"compress": True}).status_code == 201
        assert client.post("/v0/server/backup", json={"remove": True}).status_code == 409
        assert client.post("/v0/server/backup", json={"data_store": "aws_s3"}).status_code == 409
        assert client.post("/v0/server/backup", json={"compress": "yes"}).status_code == 400
    plain, packed = sorted((tmp_path / "server/backups").iterdir(), key=lambda path: path.suffix)
    assert plain.read_bytes().startswith(b"SQLite format 3\0")
    assert gzip.decompress(packed.read_bytes()).startswith(b"SQLite format 3\0")
    assert plain.stat().st_mode & 0o077 == 0


def test_a_part_that_fails_to_open_ends_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StableError, match="cannot listen"):
            with running_server(tmp_path / "server", settings={"server": {"bind": taken}}):
                pass


def test_a_storage_that_cannot_be_written_to_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    class Denying(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.send_error(403, "AccessDenied")

        def log_message(self, *_: object) -> None:
            pass

    denying = ThreadingHTTPServer(("127.0.0.1", 0), Denying)
    threading.Thread(target=denying.serve_forever, daemon=True).start()
    request.addfinalizer(denying.server_close)
    request.addfinalizer(denying.shutdown)
    port = denying.server_port
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "who",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_REGION": "here",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreAway, match=r"the storage cannot be written to: .*403") as away:
        with running_server(tmp_path / "server", storage="s3://bucket/prefix"):
            pass
    assert "hunter2" not in str(away.value)


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def test_clients_that_misbehave_are_cut_and_idle_ones_delay_no_stop(tmp_path: Path) -> None:
    settings = {"server": {"read_timeout_s": 0.5}}
    with httpx.Client() as idle:
        with running_server(tmp_path / "server", settings=settings) as server:
            assert idle.get(f"{server.url}/healthz").status_code == 200
            with socket.create_connection(_address(server.url), timeout=20) as slow:
                slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
                assert slow.recv(100) == b""
            with socket.create_connection(_address(server.url), timeout=20) as slow:
                slow.sendall(b"POST /v0/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
                assert slow.recv(100).startswith(b"HTTP/1.1 408")
            with socket.create_connection(_address(server.url), timeout=20) as connection:
                connection.sendall(b"NONSENSE\r\n\r\n")
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
            assert answer.startswith(b"HTTP/1.1 400")
            assert b'"request_id"' in answer
            assert idle.get(f"{server.url}/healthz").status_code == 200
            began = time.monotonic()
        assert time.monotonic() - began < 15


def test_a_refused_handshake_is_no_fault_of_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_server(tmp_path / "server") as server:
        with pytest.raises(HandshakeRefused) as caught:
            RawChannel(server.url, "/v0/runners/none/channel", {})
        assert caught.value.status == 401
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost and its key, made by the system's openssl."""
    import subprocess

    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return certificate, key


def test_it_serves_with_a_certificate(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    settings = {"tls": {"certificate_file": str(certificate[0]), "key_file": str(certificate[1])}}
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    with running_server(tmp_path / "server", settings=settings) as server:
        with httpx.Client(verify=trust, trust_env=False) as client:
            answer = client.get(f"{server.url.replace('http:', 'https:')}/v0/server/config/console")
    assert answer.json()["url"].startswith("https://localhost:")
    assert "strict-transport-security" in answer.headers
