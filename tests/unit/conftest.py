"""Unit tests start no process: whoever tries is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"})
_forbidden = False


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _forbidden and event in _STARTS:
        raise AssertionError(f"{event} {arguments!r:.200}: a unit test starts no process; put it in tests/integration")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def no_process() -> Iterator[None]:
    global _forbidden  # noqa: PLW0603, an audit hook can never be removed, so it needs a switch
    _forbidden = True
    yield
    _forbidden = False
