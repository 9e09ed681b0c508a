"""Mails over an encrypted connection to a mail server that wants to know who sends them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from metalmark.model import Email, ServerUnavailable
from metalmark.server.config import SmtpSection
from metalmark.server.mail import Mail, open_mailer

pytestmark = [
    pytest.mark.anyio,
    # It knows no TLS but STARTTLS, and warns of a port that is encrypted from its first byte.
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning"),
]
USER, PASSWORD = "bench", "correct horse"
MAIL = Mail(to=Email("ada@example.com"), subject="Confirm", text="Confirmation Token: a.b.c\n")


class Post:
    """Keeps what a mail server takes, and what its clients said of themselves."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.attempts: list[tuple[bytes, bytes]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - the library's
        assert session.authenticated
        self.envelopes.append(envelope)
        return "250 kept"

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, kind: str, said: Any) -> AuthResult:
        assert isinstance(said, LoginPassword)
        self.attempts.append((said.login, said.password))
        return AuthResult(success=self.attempts[-1] == (USER.encode(), PASSWORD.encode()), handled=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mailbox")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("mail") / "mailbox.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


class AnyPort(Controller):
    """A controller that listens on a free port and knows it."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]  # the library's


@contextmanager
def mail_server(certificate: Path, *, security: str) -> Iterator[tuple[Post, int]]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    post = Post()
    settings: dict[str, Any] = {"authenticator": post.authenticate, "auth_required": True}
    if security == "starttls":
        settings |= {"tls_context": context, "require_starttls": True}
    else:
        settings |= {"ssl_context": context, "auth_require_tls": False}
    controller = AnyPort(post, hostname="127.0.0.1", port=0, **settings)
    controller.start()
    try:
        yield post, controller.port
    finally:
        controller.stop()


def smtp(folder: Path, port: int, *, security: str, password: str = PASSWORD) -> SmtpSection:
    secret = folder / "password"
    secret.write_text(f"{password}\n")
    given = {"hostname": "127.0.0.1", "port": port, "security": security, "from_email": "bench@example.com"}
    return SmtpSection.model_validate({**given, "username": USER, "password_file": secret, "timeout_s": 10})


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_mail_goes_over_tls_with_the_password(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with mail_server(certificate, security=security) as (post, port):
        await open_mailer(smtp(tmp_path, port, security=security)).send(MAIL)
    (envelope,) = post.envelopes
    assert post.attempts == [(USER.encode(), PASSWORD.encode())]
    assert (envelope.mail_from, envelope.rcpt_tos) == ("bench@example.com", ["ada@example.com"])
    assert isinstance(envelope.content, bytes) and b"Confirmation Token: a.b.c" in envelope.content


async def test_a_wrong_password_is_told_and_not_repeated(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with mail_server(certificate, security="starttls") as (post, port):
        with pytest.raises(ServerUnavailable) as caught:
            await open_mailer(smtp(tmp_path, port, security="starttls", password="wrong one")).send(MAIL)
    assert (post.envelopes, len(post.attempts) > 0) == ([], True)
    assert "wrong one" not in str(caught.value) + capsys.readouterr().out


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_mail_server_without_a_trusted_certificate_gets_nothing(
    certificate: Path, tmp_path: Path, security: str
) -> None:
    with mail_server(certificate, security=security) as (post, port):
        with pytest.raises(ServerUnavailable):
            await open_mailer(smtp(tmp_path, port, security=security)).send(MAIL)
    assert (post.envelopes, post.attempts) == ([], [])
