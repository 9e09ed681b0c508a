from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main

from metalmark.cli import runner_up
from metalmark.cli.application import run_application
from metalmark.cli.runner import app
from metalmark.model import MIB, ChannelRefused, InputError
from metalmark.runner import MAX_DOWNLOAD_BYTES, Restart

KEY = "bencher_runner_" + "a" * 30
Up = Callable[..., Any]


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Up:
    """Give words to the command, and return what the daemon would be told."""
    seen: list[Any] = []
    monkeypatch.setattr(runner_up, "_serve", seen.append)
    for name in ("METALMARK_HOST", "METALMARK_RUNNER", "METALMARK_RUNNER_KEY", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)

    def call(*words: str, key: bool = True, environment: Mapping[str, str] | None = None) -> Any:
        path = tmp_path / "key"
        path.touch(mode=0o600)
        path.write_text(KEY)
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        given = ["--key-file", str(path)] if key else []
        typer.main.get_command(app)(["up", *given, *words], standalone_mode=False)
        return seen.pop()

    return call


def test_defaults_are_those_of_one_careful_runner(up: Up) -> None:
    asked = up("--runner", "quiet-1")
    daemon = asked.daemon
    assert (daemon.runner, str(daemon.connection.address)) == ("quiet-1", "http://localhost:6610")
    assert (daemon.slots, daemon.drain_timeout_s, daemon.allow_emulation) == (1, None, False)
    assert not daemon.drivers.allow_none
    assert (daemon.output_limits.stream_bytes, daemon.output_limits.file_count) == (25 * MIB, 255)
    assert (asked.auto_update, asked.max_download_bytes) == (True, MAX_DOWNLOAD_BYTES)
    assert daemon.connection.credential.secret == KEY
    assert KEY not in repr(asked)


def test_flags_reach_the_daemon(up: Up) -> None:
    asked = up(
        "--runner", "r", "--host", "https://bench.example.com", "--slots", "3", "--allow-emulation",
        "--danger-allow-no-sandbox", "--drain-timeout", "90", "--poll-timeout", "7", "--max-output-size", "1M",
        "--max-file-count", "5", "--grace-period", "9", "--no-auto-update",
    )  # fmt: skip
    daemon = asked.daemon
    assert str(daemon.connection.address) == "https://bench.example.com"
    assert (daemon.slots, daemon.drain_timeout_s, daemon.allow_emulation) == (3, 90.0, True)
    assert daemon.drivers.allow_none
    assert daemon.pace.public_poll_s == 7
    assert daemon.output_limits.files_bytes == daemon.output_limits.stream_bytes
    assert (daemon.output_limits.file_count, daemon.grace_s, asked.auto_update) == (5, 9.0, False)


@pytest.mark.parametrize("prefix", ["METALMARK", "BENCHER"])
def test_environment_says_who_and_where(up: Up, prefix: str) -> None:
    environment = {
        f"{prefix}_RUNNER": "quiet-2",
        f"{prefix}_RUNNER_KEY": KEY,
        f"{prefix}_HOST": "https://bench.example.com",
        f"{prefix}_NO_AUTO_UPDATE": "true",
        f"{prefix}_DANGER_ALLOW_NO_SANDBOX": "1",
    }
    asked = up(key=False, environment=environment)
    assert (asked.daemon.runner, str(asked.daemon.connection.address)) == ("quiet-2", "https://bench.example.com")
    assert asked.daemon.drivers.allow_none
    assert not asked.auto_update


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--runner", "UPPER CASE"), "--runner"),
        (("--runner", "r", "--host", "ftp://x"), "--host"),
        (("--runner", "r", "--drain-timeout", "soon"), "--drain-timeout"),
        (("--runner", "r", "--drain-timeout", "100d"), "--drain-timeout"),
        (("--runner", "r", "--max-output-size", "much"), "--max-output-size"),
        (("--runner", "r", "--sandbox-log-level", "loud"), "--sandbox-log-level"),
        (("--runner", "r", "--no-auto-update", "--update-channel", "canary"), "--update-channel"),
        (("--runner", "r", "--no-auto-update", "--max-download-size", "5"), "--max-download-size"),
    ],
)
def test_wrong_usage_names_the_flag(up: Up, words: tuple[str, ...], field: str) -> None:
    with pytest.raises(InputError) as caught:
        up(*words)
    assert caught.value.field == field


@pytest.mark.parametrize("given", [True, False])
def test_what_a_runner_starts_does_not_inherit_the_key(up: Up, given: bool) -> None:
    variables = {"METALMARK_RUNNER_KEY": KEY, "BENCHER_RUNNER_KEY": KEY}
    asked = up("--runner", "r", key=given, environment=variables)
    # What a child inherits that is given no environment of its own.
    assert KEY.encode() not in b" ".join(os.environb.values())
    assert asked.key_variables == variables
    assert KEY not in repr(asked)


def test_key_in_the_command_line_is_warned_of(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    up("--runner", "r", "--key", KEY, key=False)
    told = capsys.readouterr()
    assert "use --key-file" in told.err
    assert KEY not in told.err + told.out


@pytest.mark.parametrize("refused", [True, False])
def test_end_of_the_daemon_is_the_end_of_the_command(monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    replaced: list[tuple[Path, str]] = []

    def run(function: object) -> Restart | None:
        if refused:
            raise ChannelRefused("the key is not this runner's")
        return Restart(program=Path("/opt/metalmark/launch"), why="a test")

    monkeypatch.setattr("metalmark.cli.async_command.run_async", run)
    monkeypatch.setattr(
        "metalmark.system.replace_process",
        lambda program, _, environment: replaced.append((program, environment["BENCHER_RUNNER_KEY"])),
    )
    asked = runner_up._Asked(
        daemon=None,  # type: ignore[arg-type]  # it is not looked at
        auto_update=True,
        max_download_bytes=1,
        key_variables={"BENCHER_RUNNER_KEY": KEY},
    )
    if refused:
        with pytest.raises(typer.Exit) as caught:
            runner_up._serve(asked)
        assert caught.value.exit_code == 77
    else:
        runner_up._serve(asked)
        # The next version reads the key where this one did.
        assert replaced == [(Path("/opt/metalmark/launch"), KEY)]


def test_a_runner_that_is_not_named_is_asked_for_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        for name in ("METALMARK_RUNNER", "BENCHER_RUNNER"):
            patch.delenv(name, raising=False)
        run_application(["runner", "up"])
    assert ended.value.code == 2
    assert "Missing option '--runner' (or METALMARK_RUNNER)." in capsys.readouterr().err
