from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

from metalmark.cli.application import app
from metalmark.cli.logs import Verbosity, set_up_logging
from metalmark.testing.running_server import RunningServer, running_server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of a module's own, on SQLite."""
    with running_server(tmp_path_factory.mktemp("server") / "folder", settings={"auth": {"signup": "open"}}) as server:
        yield server


@dataclass
class CommandLine:
    """Commands against a running server, by its administrator unless told otherwise."""

    server: RunningServer
    capsys: pytest.CaptureFixture[str]
    folder: Path

    def run(self, *words: str) -> tuple[str, str]:
        """Run a command and return what it wrote to standard output and to standard error."""
        self.capsys.readouterr()
        typer.main.get_command(app)(args=list(words), prog_name="metalmark", standalone_mode=False)
        written = self.capsys.readouterr()
        return written.out, written.err

    def json(self, *words: str) -> Any:
        """Run a command with --json and --strict and return what it printed."""
        out, err = self.run(*words, "--json", "--strict")
        assert err == "", err
        return json.loads(out)


@pytest.fixture
def command_line(
    running: RunningServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    # The server logs in this process too, at any moment: not onto what a command prints.
    set_up_logging(Verbosity.WARNING)
    for name in [name for name in os.environ if name.startswith(("METALMARK_", "BENCHER_", "GITHUB_")) or name == "CI"]:
        monkeypatch.delenv(name)
    key = tmp_path / "admin-key"
    key.write_text(running.admin_key)
    key.chmod(0o600)
    monkeypatch.setenv("METALMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("METALMARK_HOST", running.url)
    monkeypatch.setenv("METALMARK_API_KEY_FILE", str(key))
    return CommandLine(server=running, capsys=capsys, folder=tmp_path)
