"""Offers to an install that does not update itself."""

import anyio
import pytest
import structlog.testing

import metalmark
from metalmark.runner import NoUpdates, Updates

URL = "http://localhost/v0/updates/x"


class NoHands:
    def stop_claiming(self) -> None:
        raise AssertionError

    def resume_claiming(self) -> None:
        raise AssertionError

    async def empty(self) -> None:
        raise AssertionError


def test_the_advice_is_given_once_a_version() -> None:
    updates: Updates = NoUpdates("pip install --upgrade metalmark")
    with structlog.testing.capture_logs() as logs:
        updates.offered("9.9", URL, "a" * 64)
        updates.offered("9.9", URL, "a" * 64)
        updates.offered("10.0", URL, "b" * 64)
    assert [(line["version"], line["hint"]) for line in logs] == [
        ("9.9", "pip install --upgrade metalmark"),
        ("10.0", "pip install --upgrade metalmark"),
    ]


def test_its_own_version_is_no_news_and_without_advice_nothing_is() -> None:
    with structlog.testing.capture_logs() as logs:
        NoUpdates("pip").offered(metalmark.__version__, URL, "a" * 64)
        NoUpdates().offered("9.9", URL, "a" * 64)
    assert logs == []


@pytest.mark.anyio
async def test_it_leaves_the_jobs_alone_and_says_nothing_of_itself() -> None:
    updates = NoUpdates("pip")
    updates.offered("9.9", URL, "a" * 64)
    updates.acknowledged()
    with anyio.move_on_after(0.01) as scope:
        await updates.run(NoHands())
    assert scope.cancelled_caught
    assert updates.checksum is None
    assert not updates.on_trial
