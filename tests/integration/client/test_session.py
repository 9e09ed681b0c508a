"""Sessions over real sockets: TLS, and servers that break off, fall silent or speak something else."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from metalmark.client import Answer, ConnectionSettings, Patience, ServerAddress, Trust, open_session
from metalmark.model import ServerUnavailable, StableError

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
CUT = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{"


@dataclass
class Peer:
    """Answers each connection with the next bytes, whatever it is asked; None says nothing until the client goes."""

    port: int
    answers: list[bytes | None]
    asked: list[bytes] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self.answer(self.tls.wrap_socket(connection, server_side=True) if self.tls else connection)
                except OSError:
                    continue

    def answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            request = connection.recv(65536)
            if not request:
                return
            self.asked.append(request)
            answer = self.answers.pop(0)
            if answer is None:
                connection.recv(1)
                return
            connection.sendall(answer)


@contextmanager
def peer(*answers: bytes | None, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Peer(port=listener.getsockname()[1], answers=list(answers), tls=tls)
        thread = threading.Thread(target=found.serve, args=(listener,))
        thread.start()
        try:
            yield found
        finally:
            # Closing alone does not wake a thread that accepts.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(15)


async def ask(
    address: str, *, method: str = "GET", trust: Trust | None = None, patience: Patience | None = None
) -> tuple[Answer, list[str]]:
    told: list[str] = []
    settings = ConnectionSettings(
        address=ServerAddress.parse(address),
        trust=trust or Trust(),
        patience=patience or Patience(attempts=3, first_wait_s=0.01, longest_wait_s=0.01, answer_s=5),
    )
    async with open_session(settings, environment={}, notify=told.append) as session:
        return await session.call(method, "x"), told


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServerUnavailable, match="cannot be reached"):
        await ask(f"http://127.0.0.1:{port}")


async def test_answer_that_breaks_off_is_asked_for_again() -> None:
    with peer(CUT, b"", OK) as server:
        _, told = await ask(f"http://127.0.0.1:{server.port}")
    assert len(server.asked) == 3
    assert all("broke off" in line for line in told)


async def test_post_whose_answer_breaks_off_is_sent_once() -> None:
    with peer(CUT, OK) as server, pytest.raises(ServerUnavailable, match="broke off"):
        await ask(f"http://127.0.0.1:{server.port}", method="POST")
    assert len(server.asked) == 1


async def test_silence_has_a_deadline() -> None:
    patience = Patience(attempts=2, first_wait_s=0.01, answer_s=0.2)
    with peer(None, OK) as server:
        _, told = await ask(f"http://127.0.0.1:{server.port}", patience=patience)
    assert len(told) == 1


async def test_what_is_not_http() -> None:
    with peer(b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail\r\n", b"\0\0") as server:
        with pytest.raises(ServerUnavailable):
            await ask(f"http://127.0.0.1:{server.port}")


@dataclass(frozen=True)
class Certificates:
    authority: Path
    server: Path
    client: Path

    def context(self, *, demand: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        if demand:
            # Version 1.3 lets the client finish first, and would tell it later that its certificate is missing.
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.authority)
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, a certificate for 127.0.0.1 and one for a client."""
    folder = tmp_path_factory.mktemp("tls")
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])

    def signed(name: str, key: ec.EllipticCurvePrivateKey, change: Callable[..., x509.CertificateBuilder]) -> Path:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(authority_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        certificate = change(builder).sign(authority_key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
        return path

    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    return Certificates(
        authority=signed("authority", authority_key, lambda to: to.add_extension(constraints, critical=True)),
        server=signed(
            "server", ec.generate_private_key(ec.SECP256R1()), lambda to: to.add_extension(address, critical=False)
        ),
        client=signed("client", ec.generate_private_key(ec.SECP256R1()), lambda to: to),
    )


async def test_certificate_of_a_known_authority(certificates: Certificates) -> None:
    with peer(OK, tls=certificates.context()) as server:
        await ask(f"https://127.0.0.1:{server.port}", trust=Trust(ca_file=certificates.authority))


async def test_certificate_of_a_stranger(certificates: Certificates) -> None:
    with peer(OK, tls=certificates.context()) as server:
        with pytest.raises(StableError, match="is not trusted") as caught:
            await ask(f"https://127.0.0.1:{server.port}")
        assert server.asked == []
        assert "--ca-file" in caught.value.hint
        await ask(f"https://127.0.0.1:{server.port}", trust=Trust(insecure=True))


async def test_certificate_of_another_host(certificates: Certificates) -> None:
    with peer(OK, tls=certificates.context()) as server:
        with pytest.raises(StableError, match="is not trusted"):
            await ask(f"https://localhost:{server.port}", trust=Trust(ca_file=certificates.authority))


async def test_server_that_asks_for_a_certificate(certificates: Certificates) -> None:
    own = Trust(ca_file=certificates.authority, client_certificate=certificates.client)
    with peer(OK, tls=certificates.context(demand=True)) as server:
        with pytest.raises((StableError, ServerUnavailable)):
            await ask(f"https://127.0.0.1:{server.port}", trust=Trust(ca_file=certificates.authority))
        await ask(f"https://127.0.0.1:{server.port}", trust=own)


async def test_tls_to_a_server_without() -> None:
    with peer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as server, pytest.raises(StableError, match="TLS"):
        await ask(f"https://127.0.0.1:{server.port}")
