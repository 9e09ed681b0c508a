"""The audit log as an operator reads it, on both engines."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metalmark.cli.server import app
from metalmark.model import InputError


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METALMARK_HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("METALMARK_SERVER")]:
        monkeypatch.delenv(name)


def run(*words: str) -> str:
    outcome = CliRunner().invoke(app, ["admin", *words], catch_exceptions=False, standalone_mode=False)
    if outcome.exception is not None:
        raise outcome.exception
    return outcome.stdout


def test_what_was_administered_is_shown_the_latest_first(database_url: str) -> None:
    place = ("--database", database_url)
    made = json.loads(run("create-user", "--name", "Ada", "--email", "ada@example.com", "--json", *place))
    reset = json.loads(run("reset-key", "ada", "--json", *place))
    acts = json.loads(run("audit", "--json", *place))
    assert [act["action"] for act in acts] == ["user.reset_key", "user.create"]
    assert {act["subject"] for act in acts} == {made["uuid"]}
    assert acts[0]["actor_kind"] == "operator"
    assert [act["action"] for act in json.loads(run("audit", "--limit", "1", "--json", *place))] == ["user.reset_key"]
    assert json.loads(run("audit", "--actor", made["uuid"], "--json", *place)) == []
    assert len(json.loads(run("audit", "--subject", made["uuid"], "--json", *place))) == 2
    table = run("audit", *place)
    assert "user.reset_key" in table
    for secret in (made["key"], reset["key"]):
        assert secret.removeprefix("bencher_user_") not in table + json.dumps(acts)


def test_a_subject_is_a_uuid(database_url: str) -> None:
    with pytest.raises(InputError, match="--subject"):
        run("audit", "--subject", "ada", "--database", database_url)
