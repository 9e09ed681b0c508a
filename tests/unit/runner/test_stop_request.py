from __future__ import annotations

import anyio
import pytest

from metalmark.model import Phase, PhaseTimeout
from metalmark.runner.phase_clock import PhaseClock
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


async def test_phases_are_summed_in_their_own_order_and_kept_on_failure() -> None:
    clock = PhaseClock()
    with pytest.raises(ValueError, match="x"), clock.phase(Phase.EXEC):
        raise ValueError("x")
    with clock.phase(Phase.PULL):
        pass
    with clock.phase(Phase.PULL):
        pass
    assert [span.phase for span in clock.results()] == [Phase.PULL, Phase.EXEC]
    assert clock.results()[0].duration_s == sum(span.duration_ns for span in clock.spans[1:]) / 1e9


async def test_phase_over_its_limit_is_told_by_name_and_outer_cancellation_is_not_its_own() -> None:
    clock = PhaseClock()
    with pytest.raises(PhaseTimeout, match=r"pull did not end within 0\.01 s"), clock.phase(Phase.PULL, limit_s=0.01):
        await anyio.sleep(10)
    with anyio.move_on_after(0.01) as outer:
        with clock.phase(Phase.ROOTFS, limit_s=100):
            await anyio.sleep(10)
    assert outer.cancelled_caught
