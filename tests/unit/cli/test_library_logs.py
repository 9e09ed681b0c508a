from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from metalmark.cli.library_logs import forward_library_logs


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], root.level = before[0], before[1]


def test_warnings_and_errors_of_libraries_are_in_the_log_and_the_rest_is_not() -> None:
    forward_library_logs()
    library = logging.getLogger("some.library")
    with capture_logs() as logged:
        library.info("chatter")
        library.warning("odd: %s", "x")
        try:
            int("x")
        except ValueError:
            library.exception("broken")
    assert [(entry["event"], entry["log_level"]) for entry in logged] == [("odd: x", "warning"), ("broken", "error")]
    assert logged[1]["exc_info"][0] is ValueError
