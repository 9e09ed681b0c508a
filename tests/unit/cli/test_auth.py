from __future__ import annotations

import io
from pathlib import Path

import pytest
from tests.unit.cli.scripted_server import ScriptedServer

from metalmark.model import InputError


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("signup a@x.org --i-agree", ("POST", "/auth/signup", {}, {"email": "a@x.org", "name": "a", "i_agree": True})),
        (
            "signup a@x.org --i-agree --name A --slug a --invite i --claim c --plan p",
            (
                "POST",
                "/auth/signup",
                {},
                {
                    "email": "a@x.org",
                    "name": "A",
                    "slug": "a",
                    "invite": "i",
                    "claim": "c",
                    "i_agree": True,
                },
            ),
        ),
        ("login a@x.org --invite i --plan p", ("POST", "/auth/login", {}, {"email": "a@x.org", "invite": "i"})),
        ("accept a.b.c", ("POST", "/auth/accept", {}, {"invite": "a.b.c"})),
    ],
)
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("auth", *words.split())
    assert server.asked == [asked]


@pytest.mark.parametrize("command", [("login", "a@x.org"), ("signup", "a@x.org", "--i-agree")])
def test_invitation_may_come_from_a_file_or_standard_input(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    file = tmp_path / "invitation"
    file.write_text("a.b.c\n")
    for words in (("--invite", "-"), ("--invite-file", str(file))):
        monkeypatch.setattr("sys.stdin", io.StringIO("a.b.c\n"))
        server.run("auth", *command, *words)
    assert [body["invite"] for *_, body in server.asked] == ["a.b.c"] * 2
    for words in (("--invite", "i", "--invite-file", str(file)), ("--invite-file", str(tmp_path / "none"))):
        with pytest.raises(InputError, match="--invite-file"):
            server.run("auth", *command, *words)


def test_confirmation_may_come_from_standard_input_and_its_token_go_into_a_file(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for words, shown in ((("-",), True), (("a.b.c", "--save-token", str(tmp_path / "session")), False)):
        monkeypatch.setattr("sys.stdin", io.StringIO("a.b.c\n"))
        server.answer({"user": {"slug": "ada"}, "token": "d.e.f"})
        out, err = server.run("auth", "confirm", *words)
        assert ("d.e.f" in out + err) is shown
    assert server.asked == [("POST", "/auth/confirm", {}, {"token": "a.b.c"})] * 2
    assert (tmp_path / "session").read_text() == "d.e.f\n"


def test_signing_up_needs_no_key_and_an_agreement(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METALMARK_API_KEY")
    with pytest.raises(InputError, match="--i-agree"):
        server.run("auth", "signup", "a@x.org")
    server.run("auth", "login", "a@x.org")
    assert "authorization" not in server.requests[0].headers
