from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from metalmark.cli.logs import Verbosity, set_up_logging, shown
from metalmark.model import InputError


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("verbose", "quiet", "variable", "level"),
    [
        (0, False, "", Verbosity.WARNING),
        (1, False, "", Verbosity.INFO),
        (2, False, "", Verbosity.DEBUG),
        (0, True, "debug", Verbosity.ERROR),
        (1, False, "error", Verbosity.INFO),
        (0, False, "Debug", Verbosity.DEBUG),
    ],
)
def test_flag_beats_variable_beats_default(verbose: int, quiet: bool, variable: str, level: Verbosity) -> None:
    assert Verbosity.of(verbose=verbose, quiet=quiet, environment={"METALMARK_LOG": variable}) is level


def test_unknown_level_is_refused() -> None:
    with pytest.raises(InputError, match="METALMARK_LOG is 'loud'"):
        Verbosity.of(verbose=0, quiet=False, environment={"METALMARK_LOG": "loud"})


def test_lines_are_json_on_stderr_and_lower_levels_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logging(Verbosity.WARNING)
    assert shown() is Verbosity.WARNING
    log = structlog.get_logger("test")
    log.info("unheard")
    log.warning("heard", box="run-1", exc_info=ValueError("inside"))
    [line] = stream.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["box"]) == ("heard", "warning", "run-1")
    assert "ValueError: inside" in event["exception"]


def test_an_error_on_a_terminal_shows_no_values_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logging(Verbosity.WARNING)

    def fail(key: str) -> int:
        return int(key[:1])

    secret = "-".join(("x", "secret", "key"))
    try:
        fail(secret)
    except ValueError as error:
        structlog.get_logger("test").error("failed", exc_info=error)
    assert "ValueError" in stream.getvalue()
    assert "x-secret-key" not in stream.getvalue()


def test_a_terminal_obeys_nothing_that_an_event_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logging(Verbosity.WARNING)
    structlog.get_logger("test").warning("image\x1b]0;a\x07", error="\x1b[2J")
    assert "\x1b]0" not in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()
    assert "image\\x1b]0;a\\x07" in stream.getvalue()
