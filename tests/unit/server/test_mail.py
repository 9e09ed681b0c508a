from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from metalmark.model import Email, InputError
from metalmark.server.config import SmtpSection
from metalmark.server.mail import (
    LogMailer,
    Mail,
    SmtpMailer,
    confirmation_mail,
    invitation_mail,
    message_of,
    open_mailer,
)

ADA = Email("ada@example.com")
SMTP = SmtpSection(hostname="mail.example.com", from_name="Metalmark, Inc.", from_email="bench@example.com")


def test_a_confirmation_has_the_link_and_the_token() -> None:
    mail = confirmation_mail(ADA, new=True, console_url="http://localhost:3000/", token="a.b.c")
    assert "\nConfirm Email: http://localhost:3000/auth/confirm?token=a.b.c\n" in mail.text
    assert "\nConfirmation Token: a.b.c\n" in mail.text
    login = confirmation_mail(ADA, new=False, console_url="http://localhost:3000", token="a.b.c")
    assert "\nConfirm Login: http://localhost:3000/auth/confirm?token=a.b.c\n" in login.text


@pytest.mark.parametrize(("known", "page"), [(True, "login"), (False, "signup")])
def test_an_invitation_leads_to_where_its_reader_has_to_go(known: bool, page: str) -> None:
    mail = invitation_mail(
        ADA,
        name=None,
        inviter="Grace",
        organization="Acme",
        role="leader",
        console_url="http://localhost:3000/",
        token="a.b.c",
        known=known,
    )
    assert f"http://localhost:3000/auth/{page}?invite=a.b.c\n" in mail.text
    assert re.search(r'Grace invites you to the organization "Acme" as leader', mail.text)
    assert "\nInvite Token: a.b.c\n" in mail.text


def test_without_a_mail_server_a_mail_is_in_the_log() -> None:
    mailer = open_mailer(SmtpSection())
    assert isinstance(mailer, LogMailer)
    with capture_logs() as logs:
        anyio.run(mailer.send, Mail(to=ADA, subject="x", text="Confirmation Token: a.b.c\n"))
    assert [(entry["log_level"], entry["to"]) for entry in logs] == [("info", ADA)]
    assert logs[0]["text"].startswith("To: ada@example.com\n")
    assert "Confirmation Token: a.b.c" in logs[0]["text"]


def test_a_message_has_the_headers_that_mail_servers_want() -> None:
    message = message_of(Mail(to=ADA, subject="Ünïcode", text="Grüße\n"), SMTP)
    assert message["From"] == '"Metalmark, Inc." <bench@example.com>'
    assert (message["To"], message["Subject"], message["Auto-Submitted"]) == (ADA, "Ünïcode", "auto-generated")
    assert message["Message-ID"].endswith("@example.com>")
    assert message["Date"]
    assert message.get_content() == "Grüße\n"


def test_a_subject_cannot_add_headers() -> None:
    with pytest.raises(ValueError, match=r"newline|linefeed"):
        message_of(Mail(to=ADA, subject="x\r\nBcc: eve@example.com", text=""), SMTP)


def test_the_password_comes_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\n")
    mailer = open_mailer(SMTP.model_copy(update={"username": "ada", "password_file": file}))
    assert isinstance(mailer, SmtpMailer)
    assert "correct horse" not in repr(vars(mailer).get("_smtp"))
    with pytest.raises(InputError, match=r"smtp\.password_file"):
        open_mailer(SMTP.model_copy(update={"password_file": tmp_path / "missing"}))
