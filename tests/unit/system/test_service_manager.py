"""What the service manager's environment means."""

import pytest

from metalmark.system import keep_manager_content, notify_manager, watchdog_period_s


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_nobody_is_told(environment: dict[str, str]) -> None:
    assert not notify_manager(environment, "READY=1")


def test_a_manager_that_is_gone_is_no_error() -> None:
    assert not notify_manager({"NOTIFY_SOCKET": "/nonexistent/notify"}, "READY=1")


@pytest.mark.parametrize(
    ("environment", "period_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "120000000"}, 120.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": "7"}, 120.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_meant_for_one_process(environment: dict[str, str], period_s: float | None) -> None:
    assert watchdog_period_s(environment, pid=7) == period_s


@pytest.mark.anyio
async def test_without_a_watchdog_there_is_nothing_to_do() -> None:
    await keep_manager_content({})
