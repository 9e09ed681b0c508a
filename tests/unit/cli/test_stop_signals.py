from __future__ import annotations

import os
import signal

import anyio
import pytest

from metalmark.cli.stop_signals import heeded, heeding_signals
from metalmark.runner import StopRequest
from metalmark.runner.stop_request import Urgency


@pytest.mark.anyio
async def test_signals_become_requests_and_the_first_is_told() -> None:
    stop, told = StopRequest(), []
    async with heeding_signals(stop, first=lambda: told.append(1)):
        for urgency in (Urgency.POLITE, Urgency.FORCED):
            os.kill(os.getpid(), signal.SIGTERM)
            with anyio.fail_after(5):
                while stop.urgency < urgency:
                    await anyio.sleep(0.01)
    assert (stop.signal, told) == (signal.SIGTERM, [1])


def test_what_was_ignored_from_the_start_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert heeded() == (signal.SIGINT, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.SIGHUP in heeded()
