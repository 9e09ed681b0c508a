"""Commands that make a service of a runner, as far as they go without systemd; tests/machine has the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metalmark.cli.runner import app
from metalmark.model import InputError, MetalmarkError, NoPermission, StableError

KEY = f"bencher_runner_{'k' * 30}"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("METALMARK_", "BENCHER_"))]:
        monkeypatch.delenv(name)


def run(*words: str) -> str:
    outcome = CliRunner().invoke(app, list(words), catch_exceptions=False, standalone_mode=False)
    if outcome.exception is not None:
        raise outcome.exception
    return outcome.stdout


def test_the_unit_is_shown_and_nothing_done(tmp_path: Path) -> None:
    words = (
        "--runner",
        "rack-1",
        "--host",
        "https://bench.example.com",
        "--slots",
        "2",
        "--root",
        str(tmp_path / "opt"),
    )
    text = run("install-service", *words, "--drain-timeout", "90", "--print")
    assert f"\nExecStart={tmp_path}/opt/launch runner up --drain-timeout 90 --slots 2\n" in text
    assert '"METALMARK_HOST=https://bench.example.com" "METALMARK_RUNNER=rack-1"' in text
    assert list(tmp_path.iterdir()) == []


def test_the_environment_says_what_flags_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHER_RUNNER", "rack-2")
    monkeypatch.setenv("METALMARK_HOST", "http://10.0.0.1:6610")
    text = run("install-service", "--print")
    assert '"METALMARK_HOST=http://10.0.0.1:6610" "METALMARK_RUNNER=rack-2"' in text


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (("--runner", "rack-1", "--frobnicate"), "frobnicate"),
        (("--runner", "rack-1", "--slots", "0"), "slots"),
        (("--runner", "rack-1", "--host", "ftp://x"), "--host"),
        ((), "--runner"),
    ],
)
def test_what_the_service_could_not_start_with_is_told_now(words: tuple[str, ...], about: str) -> None:
    with pytest.raises(InputError) as caught:
        run("install-service", *words, "--print")
    assert about in str(caught.value)


@pytest.mark.parametrize("words", [("--key", KEY), (f"--key={KEY}",), ("--", "--key", KEY)])
def test_a_key_never_gets_into_the_unit(words: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="--key") as caught:
        run("install-service", "--runner", "rack-1", "--print", *words)
    assert KEY not in f"{caught.value} {caught.value.hint}"


def test_a_command_line_that_is_not_understood_is_told_without_its_key() -> None:
    with pytest.raises(InputError, match="frobnicate") as caught:
        run("smoke-test", "--", "runner", "up", "--runner", "rack-1", "--key", KEY, "--frobnicate")
    assert KEY not in str(caught.value)


def test_a_machine_without_systemd_is_left_alone(tmp_path: Path) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("this machine was started by systemd")
    with pytest.raises(MetalmarkError) as caught:
        run("install-service", "--runner", "rack-1", "--root", str(tmp_path / "opt"))
    assert isinstance(caught.value, StableError if os.geteuid() == 0 else NoPermission)
    assert list(tmp_path.iterdir()) == []


def test_every_module_of_a_runner_loads_and_a_command_line_is_parsed() -> None:
    assert run("smoke-test", "--", "runner", "up", "--runner", "rack-1", "--drain-timeout", "90") == "ok\n"
    for words in (["runner", "up", "--nope"], ["runner", "down"], ["up"]):
        with pytest.raises(MetalmarkError):
            run("smoke-test", "--", *words)
