"""What an operator does at the machine of a server, on both engines."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metalmark.cli.server import app
from metalmark.model import Conflict, InputError, NotFound, StableError
from metalmark.server import ConfigFaults
from metalmark.system import try_locked
from metalmark.testing.running_server import running_server


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METALMARK_HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("METALMARK_SERVER")]:
        monkeypatch.delenv(name)


def run(*words: str) -> str:
    outcome = CliRunner().invoke(app, list(words), catch_exceptions=False, standalone_mode=False)
    if outcome.exception is not None:
        raise outcome.exception
    return outcome.stdout


def test_an_account_is_made_and_its_key_opens_the_server(tmp_path: Path, database_url: str) -> None:
    words = ("--name", "Ada", "--email", "Ada@Example.com", "--admin", "--database", database_url, "--json")
    made = json.loads(run("admin", "create-user", *words))
    assert (made["email"], made["admin"]) == ("ada@example.com", True)
    with running_server(tmp_path / "server", database=database_url, has_users=True) as server:
        with server.client(made["key"]) as client:
            assert client.get("/v0/server/config").status_code == 200
        kept = tmp_path / "key"
        run("admin", "reset-key", "ada", "--database", database_url, "--save-key", str(kept))
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        with server.client(made["key"]) as client:
            assert client.get("/v0/server/config").status_code == 401
        with server.client(kept.read_text().strip()) as client:
            assert client.get("/v0/server/config").status_code == 200


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    run("admin", "create-user", "--name", "Ada", "--email", "ada@example.com")
    with pytest.raises(Conflict):
        run("admin", "create-user", "--name", "Eve", "--email", "ada@example.com")
    with pytest.raises(NotFound):
        run("admin", "reset-key", "eve@example.com")
    with pytest.raises(InputError):
        run("admin", "reset-key", "Not A Slug")
    with pytest.raises(InputError):
        run("admin", "create-user", "--name", "Eve", "--email", "nowhere")
    assert not (tmp_path / "key").exists()
    with pytest.raises(NotFound):
        run("admin", "reset-key", "nobody", "--save-key", str(tmp_path / "key"))
    assert not (tmp_path / "key").exists()


def test_a_copy_brings_back_what_was_there(tmp_path: Path, database_url: str) -> None:
    database = ("--database", database_url)
    run("admin", "create-user", "--name", "Ada", "--email", "ada@example.com", *database)
    copy = tmp_path / "copy"
    run("admin", "backup", str(copy), *database)
    run("admin", "create-user", "--name", "Eve", "--email", "eve@example.com", *database)
    with pytest.raises(InputError, match="--yes"):
        run("admin", "restore", str(copy), *database)
    run("admin", "restore", str(copy), "--yes", *database)
    with pytest.raises(NotFound):
        run("admin", "reset-key", "eve", *database)
    run("admin", "reset-key", "ada", *database)
    with pytest.raises(InputError, match="already"):
        run("admin", "backup", str(copy), *database)


def test_tables_are_made_once_and_space_is_given_back(tmp_path: Path, empty_database_url: str) -> None:
    database = ("--database", empty_database_url)
    assert json.loads(run("admin", "migrate", "--json", *database))["taken"]
    assert json.loads(run("admin", "migrate", "--json", *database))["taken"] == []
    run("admin", "vacuum", *database)


def test_nothing_is_restored_under_a_server_that_runs(tmp_path: Path) -> None:
    run("admin", "migrate")
    copy = tmp_path / "copy"
    run("admin", "backup", str(copy))
    with sqlite3.connect(copy) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    connection.close()
    with try_locked(tmp_path / "home/state/server/server.lock") as mine:
        assert mine
        with pytest.raises(StableError, match="runs in"):
            run("admin", "restore", str(copy), "--yes")


def test_a_configuration_is_checked_without_starting_anything(tmp_path: Path) -> None:
    assert "no errors" in run("config", "check")
    file = tmp_path / "server.toml"
    file.write_text('database = "postgresql://me:hunter2@host/x"\n[server]\nbind = "nowhere"\n[auth]\nsignup = 3\n')
    outcome = CliRunner().invoke(app, ["config", "check", "--config", str(file), "--json"])
    assert outcome.exit_code == 1
    assert [fault["where"].split()[0] for fault in json.loads(outcome.stdout)["errors"]] == [
        "auth.signup",
        "server.bind",
    ]
    with pytest.raises(ConfigFaults) as caught:
        run("config", "check", "--config", str(file))
    assert caught.value.hint == "", "it would name the very command"
    file.write_text('database = "postgresql://me:hunter2@host/x"\n')
    shown = json.loads(run("config", "check", "--config", str(file), "--json"))["configuration"]
    assert shown["database"] == "postgresql://me:********@host/x"
    assert shown["server"]["bind"] == "127.0.0.1:6610"
