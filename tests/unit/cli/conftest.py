from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.scripted_server import ScriptedServer, install


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], metalmark_home: Path) -> ScriptedServer:
    """A server without a socket that commands of this test reach with a user's key."""
    del metalmark_home
    scripted = ScriptedServer(capsys=capsys)
    install(monkeypatch, scripted.handle)
    return scripted
