"""Accounts, projects and what belongs to them, by commands against a server that runs."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tests.integration.cli.conftest import CommandLine

from metalmark.model import RequestRefused
from metalmark.server import mail

Mails = Callable[[str], str]


@pytest.fixture
def token_of(monkeypatch: pytest.MonkeyPatch) -> Mails:
    """Returns the token of the last mail to an address."""
    sent: dict[str, str] = {}

    async def send(self: object, mail: mail.Mail) -> None:
        sent[str(mail.to)] = mail.text

    monkeypatch.setattr(mail.LogMailer, "send", send)

    def found(address: str) -> str:
        match = re.search(r"Token: (\S+)", sent[address])
        assert match is not None, sent[address]
        return match[1]

    return found


def test_sign_up_make_a_key_and_use_it(command_line: CommandLine, token_of: Mails) -> None:
    cli = command_line
    assert cli.json("auth", "signup", "ada@example.com", "--name", "Ada Lovelace", "--i-agree")
    signed_in = cli.folder / "session"
    session = cli.json("auth", "confirm", token_of("ada@example.com"), "--save-token", str(signed_in))
    assert session["user"]["slug"] == "ada-lovelace"
    token = signed_in.read_text().strip()
    path = cli.folder / "ada.key"
    words = ("key", "create", "ada-lovelace", "--name", "ci", "--ttl", "1d", "--save-key", str(path))
    _, err = cli.run(*words, "--token", token)
    assert "use --key-file" in err
    assert token not in err
    ada = ("--key-file", str(path))
    [key] = cli.json("key", "list", "ada-lovelace", *ada)
    assert key["name"] == "ci"
    assert cli.json("user", "key", "view", "ada-lovelace", key["uuid"], *ada) == key
    assert cli.json("key", "update", "ada-lovelace", key["uuid"], "--name", "laptop", *ada)["name"] == "laptop"
    assert cli.json("user", "view", "ada-lovelace", *ada)["email"] == "ada@example.com"
    with pytest.raises(RequestRefused) as caught:
        cli.run("user", "list", *ada)
    assert caught.value.status == 403
    with pytest.raises(RequestRefused) as caught:
        cli.run("key", "revoke", "ada-lovelace", key["uuid"])
    assert caught.value.status == 403
    cli.run("key", "revoke", "ada-lovelace", key["uuid"], "--key-file", str(signed_in))
    revoked = cli.json("key", "list", "ada-lovelace", "--revoked", "--key-file", str(signed_in))
    assert [each["uuid"] for each in revoked] == [key["uuid"]]
    with pytest.raises(RequestRefused) as caught:
        cli.run("user", "view", "ada-lovelace", *ada)
    assert caught.value.status == 401


def test_tokens_are_retired(command_line: CommandLine) -> None:
    [admin] = [user for user in command_line.json("user", "list", "--all") if user["admin"]]
    assert command_line.json("token", "list", admin["slug"]) == []
    with pytest.raises(RequestRefused) as caught:
        command_line.run("token", "create", admin["slug"], "--name", "t")
    assert caught.value.status == 403


def test_users_are_locked_and_renamed(command_line: CommandLine, token_of: Mails) -> None:
    cli = command_line
    cli.json("auth", "signup", "bob@example.com", "--name", "Bob", "--i-agree")
    assert cli.json("user", "update", "bob", "--locked", "true", "--name", "Robert")["locked"] is True
    with pytest.raises(RequestRefused) as caught:
        cli.run("auth", "login", "bob@example.com")
    assert caught.value.status == 403
    cli.json("user", "update", "bob", "--locked", "false")
    cli.json("auth", "login", "bob@example.com")
    assert cli.json("auth", "confirm", token_of("bob@example.com"))["user"]["name"] == "Robert"


def test_organization_with_a_member(command_line: CommandLine, token_of: Mails) -> None:
    cli = command_line
    made = cli.json("organization", "create", "--name", "Quiet Racks")
    assert cli.json("org", "list", "--search", "quiet") == [made]
    cli.json("member", "invite", "quiet-racks", "--email", "eve@example.com", "--role", "leader")
    invitation = token_of("eve@example.com")
    cli.json("auth", "signup", "eve@example.com", "--name", "Eve", "--i-agree", "--invite", invitation)
    cli.json("auth", "confirm", token_of("eve@example.com"))
    assert "eve" in [member["slug"] for member in cli.json("member", "list", "quiet-racks")]
    assert cli.json("member", "view", "quiet-racks", "eve")["role"] == "leader"
    assert cli.json("member", "update", "quiet-racks", "eve", "--role", "leader")["role"] == "leader"
    assert cli.json("organization", "allowed", "quiet-racks", "--perm", "delete") == {"allowed": True}
    cli.run("member", "remove", "quiet-racks", "eve")
    assert "eve" not in [member["slug"] for member in cli.json("member", "list", "quiet-racks")]
    assert cli.json("organization", "update", "quiet-racks", "--slug", "racks")["slug"] == "racks"
    cli.run("organization", "delete", "racks")
    with pytest.raises(RequestRefused) as caught:
        cli.run("organization", "view", "racks")
    assert caught.value.status == 404


def test_project_and_what_belongs_to_it(command_line: CommandLine) -> None:
    cli = command_line
    cli.json("organization", "create", "--name", "Widgets Inc")
    project = cli.json("project", "create", "widgets-inc", "--name", "Widgets", "--url", "https://example.com/")
    assert cli.json("project", "list", "widgets-inc") == [project]
    assert cli.json("project", "update", "widgets", "--url", "_")["url"] is None
    assert cli.json("project", "allowed", "widgets", "--perm", "manage") == {"allowed": True}
    hardware = "--os linux --architecture aarch64 --cpu 1 --memory 1GiB --disk 1GiB"
    cli.json("spec", "create", "--name", "Board", *hardware.split())
    testbed = cli.json("testbed", "create", "widgets", "--name", "Pi 5", "--spec", "board")
    assert testbed["spec"]["slug"] == "board"
    assert cli.json("testbed", "update", "widgets", "pi-5", "--spec", "_")["spec"] is None
    main = cli.json("branch", "create", "widgets", "--name", "main")
    feature = cli.json("branch", "create", "widgets", "--name", "feature/x", "--start-point-branch", "main")
    assert cli.json("branch", "list", "widgets", "--sort", "name") == [feature, main]
    replaced = cli.json("branch", "update", "widgets", "main", "--start-point-reset")
    assert replaced["head"]["uuid"] != main["head"]["uuid"]
    assert cli.json("branch", "view", "widgets", "main", "--head", main["head"]["uuid"])["head"]["replaced"]
    times = ["--start-time", "2026-01-31T10:00:00Z", "--end-time", "2026-01-31T10:00:05Z"]
    report = cli.json("report", "create", "widgets", "--branch", "main", "--testbed", "pi-5", *times, "--results", "{}",
                      "--adapter", "json", "--hash", "0" * 40)  # fmt: skip
    assert report["branch"]["head"]["version"] == {"number": 0, "hash": "0" * 40}
    cli.run("report", "delete", "widgets", report["uuid"])
    assert cli.json("branch", "update", "widgets", "main", "--archive")["archived"]
    assert [branch["slug"] for branch in cli.json("branch", "list", "widgets", "--archived")] == ["main"]
    out, _ = cli.run("branch", "view", "widgets", feature["slug"])
    assert "feature/x" in out
    cli.run("branch", "delete", "widgets", feature["slug"])
    cli.run("testbed", "delete", "widgets", "pi-5")
    key = cli.json("project", "key", "create", "widgets", "--name", "ci")
    out, err = cli.run("project", "view", "widgets", "--key", key["key"])
    assert "Widgets" in out
    assert key["key"] not in out + err
    cli.run("project", "key", "revoke", "widgets", key["uuid"])
    cli.run("project", "delete", "widgets", "--hard")
    assert cli.json("project", "list", "widgets-inc") == []
