from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from metalmark.cli.run_display import RunDisplay
from metalmark.model import Phase, Progress


def test_progress_is_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    display = RunDisplay(quiet=False)
    display.progress(Progress(task="pull layer", done=1, total=2))
    display.close()
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal_is_gone_before_the_benchmark_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    display = RunDisplay(quiet=False)
    display.progress(Progress(task="pull [layer]", done=1, total=2))
    display.progress(Progress(task="no total", done=5))
    display.progress(Progress(task="no total", done=7, finished=True))
    display.phase_started(Phase.ROOTFS, 0)
    assert display._bars is not None, "it stays over both of the run's own phases"
    display.phase_started(Phase.SPAWN, 1)
    assert display._bars is None
    assert "pull [layer]" in capsys.readouterr().err


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    display = RunDisplay(quiet=True)
    display.warned("x")
    display.say("y")
    (tmp_path / "console.log").write_bytes(b"boot")
    display.debug_log(tmp_path / "console.log")
    assert capsys.readouterr().err == ""


def test_console_log_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"\x1b[2Jboot\xff\nend")
    RunDisplay(quiet=False).debug_log(tmp_path / "console.log")
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert told.splitlines()[1] == "console: end"


def test_of_an_endless_console_log_the_end_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with (tmp_path / "console.log").open("wb") as log:
        log.truncate(2**40)
        log.seek(0, os.SEEK_END)
        log.write(b"\nthe end")
    RunDisplay(quiet=False).debug_log(tmp_path / "console.log")
    assert capsys.readouterr().err.splitlines()[-1] == "console: the end"
