from __future__ import annotations

import pytest

from metalmark.cli.errors import error_text, exit_status, tell
from metalmark.model import Canceled, InputError, NoSpace, RegistryUnavailable


def test_text_has_found_why_and_hint() -> None:
    error = NoSpace("/x is full", why="there is no room for layers", hint="metalmark image gc")
    assert error_text(error) == "error: /x is full: there is no room for layers\nhint: metalmark image gc"


def test_text_of_wrong_input_names_flag_and_value() -> None:
    assert (
        error_text(InputError("--memory", "many", "this is no amount"))
        == "error: --memory is 'many': this is no amount"
    )


def test_escape_sequences_do_not_reach_the_terminal() -> None:
    error = NoSpace("\x1b]0;owned\x07 \ud800 is full", hint="line\n\x9bnext")
    assert error_text(error) == "error: \\x1b]0;owned\\x07 \\ud800 is full\nhint: line\n\\x9bnext"


@pytest.mark.parametrize(
    ("error", "running", "elsewhere"),
    [
        (InputError("--x", "y", "no"), 2, 2),
        (NoSpace("full"), 125, 1),
        (RegistryUnavailable("away"), 125, 1),
        (RuntimeError("defect"), 125, 1),
        (Canceled("stopped"), 130, 130),
        (KeyboardInterrupt(), 130, 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_exit_codes(error: BaseException, running: int, elsewhere: int) -> None:
    assert (exit_status(error, running=True), exit_status(error)) == (running, elsewhere)


def test_own_errors_have_no_traceback_and_defects_do(capsys: pytest.CaptureFixture[str]) -> None:
    for error, has in ((NoSpace("full"), False), (RuntimeError("defect"), True)):
        tell(error)
        told = capsys.readouterr()
        assert told.out == ""
        assert ("RuntimeError: defect\n" in told.err) is has
        assert told.err.count("error: ") == 1
