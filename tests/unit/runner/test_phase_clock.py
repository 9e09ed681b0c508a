from __future__ import annotations

import anyio
import pytest

from metalmark.model import Phase, PhaseTimeout
from metalmark.runner.phase_clock import PhaseClock

pytestmark = pytest.mark.anyio


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
