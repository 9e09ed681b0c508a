"""Why jobs are pending."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from metalmark.model import (
    Capabilities,
    Demand,
    PendingCause,
    PendingReason,
    RunnerStanding,
    pending_reason,
    public_runner,
)

NOW = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)
DEMAND = Demand(os="linux", architecture="x86_64", sandbox="firecracker", vcpus=2, memory_bytes=1, disk_bytes=1)
ABLE = Capabilities(sandboxes=frozenset({"firecracker"}))


def standing(
    slug: str = "rack", capabilities: Capabilities | None = ABLE, *, seen_s: float | None = 0
) -> RunnerStanding:
    seen = None if seen_s is None else NOW - timedelta(seconds=seen_s)
    return RunnerStanding(slug=slug, capabilities=capabilities, last_heartbeat=seen)


def reason(
    *runners: RunnerStanding, own_image: bool = True, archived: bool = False, limited: bool = False
) -> PendingReason:
    return pending_reason(DEMAND, runners, now=NOW, own_image=own_image, spec_archived=archived, limited=limited)


def test_the_spec_comes_first() -> None:
    assert reason(standing(), archived=True, limited=True).cause is PendingCause.SPEC_ARCHIVED
    assert reason(limited=True).cause is PendingCause.NO_RUNNER


def test_what_each_runner_lacks_is_told() -> None:
    small = Capabilities(sandboxes=frozenset({"firecracker"}), vcpus=1)
    found = reason(standing("small", small), standing("bare", Capabilities(sandboxes=frozenset({"container"}))))
    assert found.cause is PendingCause.NOT_CAPABLE
    assert "small: 1 vCPUs, not 2" in found.text
    assert "bare: sandbox firecracker" in found.text


def test_one_that_can_is_enough() -> None:
    small = Capabilities(sandboxes=frozenset({"firecracker"}), vcpus=1)
    assert reason(standing("small", small), standing()).cause is PendingCause.WAITING


def test_public_runners_do_not_help_with_images_of_others() -> None:
    public = standing("public", public_runner())
    assert reason(public, own_image=False).cause is PendingCause.FOREIGN_IMAGE
    assert reason(public, standing(), own_image=False).cause is PendingCause.WAITING
    assert reason(public).cause is PendingCause.WAITING


def test_runners_that_were_not_heard_of_are_away() -> None:
    found = reason(standing("gone", seen_s=3600), standing("new", None, seen_s=None))
    assert found.cause is PendingCause.RUNNERS_AWAY
    assert "gone" in found.text
    assert "new" in found.text


def test_a_public_runner_may_wait_in_silence_and_ours_may_not() -> None:
    assert reason(standing("public", public_runner(), seen_s=900)).cause is PendingCause.WAITING
    assert reason(standing("public", public_runner(), seen_s=1000)).cause is PendingCause.RUNNERS_AWAY
    assert reason(standing("rack", seen_s=100)).cause is PendingCause.WAITING
    assert reason(standing("rack", seen_s=130)).cause is PendingCause.RUNNERS_AWAY


def test_limits_come_when_somebody_could_take_it() -> None:
    assert reason(standing(), limited=True).cause is PendingCause.LIMITED
    assert reason(standing(seen_s=3600), limited=True).cause is PendingCause.RUNNERS_AWAY
