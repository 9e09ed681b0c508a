"""What every tier of tests shares."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A test that sets logging up in this process leaves no log that writes to its own, closed stderr."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def _signals_of_a_terminal() -> None:
    """Started with nohup or in a script's background, tests would hand ignored signals down to what they test."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests (``pytest.mark.anyio``) run on asyncio, as the commands do."""
    return "asyncio"


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether the full counts are wanted (``scripts/soak``)."""
    return bool(os.environ.get("METALMARK_SOAK"))


@pytest.fixture(scope="session")
def guest_kernels() -> Path:
    """The folder of guest kernels that ``scripts/test`` or a set-up of this host has unpacked."""
    homes = [os.environ.get("METALMARK_HOME"), str(ROOT / ".cache/home")]
    places = [Path(home) / "state/kernels" for home in homes if home] + [Path("/var/lib/metalmark/kernels")]
    for place in places:
        if any(place.glob("*/kernel.json")):
            return place
    pytest.skip("no guest kernel is set up (scripts/test or `metalmark host setup` unpacks one)")


@pytest.fixture
def metalmark_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A METALMARK_HOME of this test's own, empty."""
    home = tmp_path / "home"
    monkeypatch.setenv("METALMARK_HOME", str(home))
    return home


@pytest.fixture
def home_with_kernel(metalmark_home: Path, guest_kernels: Path) -> Path:
    """A METALMARK_HOME of this test's own in which microVMs can boot."""
    state = metalmark_home / "state"
    state.mkdir(mode=0o700, parents=True)
    (state / "kernels").symlink_to(guest_kernels)
    return metalmark_home
