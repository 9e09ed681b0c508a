"""Mails: confirmations and invitations, over SMTP or, where there is no mail server, into the log."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Protocol

import structlog

from metalmark.model import Email, InputError, ServerUnavailable
from metalmark.server.config import SmtpSection, SmtpSecurity
from metalmark.system import in_thread

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Mail:
    """One mail, in plain text."""

    to: Email
    subject: str
    text: str


class Mailer(Protocol):
    """Where mails go."""

    async def send(self, mail: Mail) -> None:
        """Send a mail.

        Raises:
            ServerUnavailable: The mail server is away, or refuses; nothing was sent.
        """


class LogMailer(Mailer):
    """Writes mails to the log, for servers without a mail server: the operator reads the link there."""

    async def send(self, mail: Mail) -> None:
        """Write a mail to the log, its tokens included: that is what it is for."""
        _log.info("mail", reason="smtp.hostname is not set", to=mail.to, text=f"To: {mail.to}\n{mail.text}")


class SmtpMailer(Mailer):
    """Sends mails through a mail server, one connection each: they are few.

    Args:
        smtp: The configuration; its ``hostname`` and ``from_email`` are set.
        password: For ``smtp.username``.
    """

    def __init__(self, smtp: SmtpSection, password: str | None) -> None:
        self._smtp = smtp
        self._password = password

    async def send(self, mail: Mail) -> None:
        """Send a mail."""
        message = message_of(mail, self._smtp)
        try:
            await in_thread(self._deliver, message)
        except (smtplib.SMTPException, OSError) as error:
            # What a mail server says may repeat the address, never the token: that is in the body.
            _log.warning("mail not sent", to=mail.to, server=self._smtp.hostname, error=str(error))
            raise ServerUnavailable("the mail could not be sent", hint="try again, or ask the operator") from error

    def _deliver(self, message: EmailMessage) -> None:
        with self._connect() as connection:
            if self._smtp.security is SmtpSecurity.STARTTLS:
                connection.starttls(context=ssl.create_default_context())
            if self._smtp.username is not None:
                connection.login(self._smtp.username, self._password or "")
            connection.send_message(message)

    def _connect(self) -> smtplib.SMTP:
        host, port, timeout_s = self._smtp.hostname or "", self._smtp.port, self._smtp.timeout_s
        if self._smtp.security is SmtpSecurity.TLS:
            return smtplib.SMTP_SSL(host, port, timeout=timeout_s, context=ssl.create_default_context())
        return smtplib.SMTP(host, port, timeout=timeout_s)


def message_of(mail: Mail, smtp: SmtpSection) -> EmailMessage:
    """Return a mail as mail servers take it."""
    sender, _, domain = (smtp.from_email or "").partition("@")
    message = EmailMessage()
    message["From"] = Address(smtp.from_name, sender, domain)
    message["To"] = mail.to
    message["Subject"] = mail.subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=domain or None)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    return message


def open_mailer(smtp: SmtpSection) -> Mailer:
    """Return the mailer that is configured.

    Raises:
        InputError: The password's file cannot be read.
    """
    if smtp.hostname is None:
        return LogMailer()
    if smtp.password_file is None:
        return SmtpMailer(smtp, None)
    try:
        password = smtp.password_file.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("smtp.password_file", str(smtp.password_file), "it cannot be read") from error
    return SmtpMailer(smtp, password)


def confirmation_mail(to: Email, *, new: bool, console_url: str, token: str) -> Mail:
    """Return the mail that confirms a sign-up or a sign-in."""
    what = "Email" if new else "Login"
    link = f"{console_url.rstrip('/')}/auth/confirm?token={token}"
    text = (
        f"{'Welcome to Metalmark' if new else 'Sign in to Metalmark'}.\n\n"
        f"Confirm {what}: {link}\n\n"
        f"or give this token to `metalmark auth confirm`:\n\n"
        f"Confirmation Token: {token}\n\n"
        "If you did not ask for this mail, do nothing.\n"
    )
    return Mail(to=to, subject=f"Confirm your Metalmark {'account' if new else 'sign-in'}", text=text)


def invitation_mail(
    to: Email,
    *,
    name: str | None,
    inviter: str,
    organization: str,
    role: str,
    console_url: str,
    token: str,
    known: bool,
) -> Mail:
    """Return the mail that invites somebody into an organization; ``known`` is whether they have an account."""
    link = f"{console_url.rstrip('/')}/auth/{'login' if known else 'signup'}?invite={token}"
    first = "Sign in, and you are one of its members:" if known else "Make an account, and you are one of its members:"
    text = (
        f"{f'Dear {name},' if name else 'Hello,'}\n\n"
        f'{inviter} invites you to the organization "{organization}" as {role}.\n\n'
        f"{first}\n\nAccept Invitation: {link}\n\n"
        "or, signed in, give this token to `metalmark auth accept`:\n\n"
        f"Invite Token: {token}\n\n"
        "If you do not know what this is about, do nothing.\n"
    )
    return Mail(to=to, subject=f"Invitation to {organization}", text=text)
