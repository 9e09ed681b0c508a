"""What an operator publishes at the machine of a server, whether or not it runs, on both engines."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.integration.server.channel.test_updates import ELF, artifact
from typer.testing import CliRunner

from metalmark.cli.server import app
from metalmark.model import InputError, NotFound, ProtocolError
from metalmark.testing.running_server import running_server


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


def test_what_is_published_is_listed_and_served_until_it_is_withdrawn(tmp_path: Path, database_url: str) -> None:
    place = ("--database", database_url, "--storage", str(tmp_path / "blobs"))
    file = artifact(tmp_path, "2.0", "x86_64", "aarch64")
    with running_server(tmp_path / "server", database=database_url, storage=str(tmp_path / "blobs")) as server:
        made = json.loads(run("publish-update", str(file), *place, "--json"))
        assert [(found["audience"], found["architecture"], found["version"]) for found in made] == [
            ("metalmark", "aarch64", "2.0"),
            ("metalmark", "x86_64", "2.0"),
        ]
        assert made == json.loads(run("list-updates", "--database", database_url, "--json"))
        assert "our runners" in run("list-updates", "--database", database_url)
        with server.client() as client:
            assert client.get(f"/v0/updates/{made[0]['checksum']}").content == file.read_bytes()
        run("withdraw-update", made[0]["checksum"], *place)
        with server.client() as client:
            assert client.get(f"/v0/updates/{made[0]['checksum']}").status_code == 404
    with pytest.raises(NotFound):
        run("withdraw-update", made[0]["checksum"], *place)


def test_a_program_for_public_runners_needs_its_version(tmp_path: Path) -> None:
    file = tmp_path / "runner"
    file.write_bytes(ELF)
    with pytest.raises(InputError, match="--version"):
        run("publish-update", str(file), "--public")
    with pytest.raises(InputError, match="--channel"):
        run("publish-update", str(file), "--public", "--version", "0.7.0", "--channel", "nightly")
    with pytest.raises(InputError, match="no program"):
        run("publish-update", str(file), "--public", "--version", "0.7.0", "--architecture", "aarch64")
    with pytest.raises(ProtocolError, match="no update artifact"):
        run("publish-update", str(file))
    with pytest.raises(InputError, match="No such file"):
        run("publish-update", str(tmp_path / "missing"))
    made = json.loads(run("publish-update", str(file), "--public", "--version", "0.7.0", "--json"))
    assert [(found["audience"], found["channel"], found["version"]) for found in made] == [
        ("public", "stable", "0.7.0")
    ]
