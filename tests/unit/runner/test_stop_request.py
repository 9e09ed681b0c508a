from __future__ import annotations

import anyio
import pytest

from metalmark.runner.stop_request import StopRequest, Urgency

pytestmark = pytest.mark.anyio


async def test_first_request_is_polite_and_gives_the_signal_second_forces() -> None:
    stop = StopRequest()
    polite, forced = anyio.CancelScope(), anyio.CancelScope()
    with stop.cancelling(polite, at=Urgency.POLITE), stop.cancelling(forced, at=Urgency.FORCED):
        stop.request(15)
        assert (polite.cancel_called, forced.cancel_called) == (True, False)
        stop.request(2)
        assert forced.cancel_called
    assert (stop.signal, stop.urgency) == (15, Urgency.FORCED)
    stop.request(2)
    assert stop.urgency is Urgency.FORCED


async def test_request_from_before_cancels_at_once() -> None:
    stop = StopRequest()
    stop.request(2)
    with anyio.CancelScope() as scope, stop.cancelling(scope, at=Urgency.POLITE):
        await anyio.sleep(10)
    assert scope.cancelled_caught


async def test_scope_that_was_left_is_let_go() -> None:
    stop = StopRequest()
    scope = anyio.CancelScope()
    with stop.cancelling(scope, at=Urgency.POLITE):
        pass
    stop.request(2)
    assert not scope.cancel_called
