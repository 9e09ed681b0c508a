"""Why a job is still pending, as far as what is stored tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from metalmark.model.capabilities import Capabilities, Demand, shortcomings

SEEN_WITHIN = timedelta(minutes=2)
"""A runner that gave no sign of life for longer is taken to be away: one of ours gives several a minute."""
PUBLIC_SEEN_WITHIN = timedelta(minutes=16)
"""The same for a public runner, which says nothing while it waits for a job, 15 minutes at most."""


class PendingCause(StrEnum):
    """What stands between a pending job and a runner."""

    SPEC_ARCHIVED = "spec_archived"
    NO_RUNNER = "no_runner"
    """No runner has the spec."""
    NOT_CAPABLE = "not_capable"
    """Runners have the spec, and none proved what it asks for."""
    FOREIGN_IMAGE = "foreign_image"
    """Only public runners could, and they get images of this server's registry only."""
    RUNNERS_AWAY = "runners_away"
    """Runners that could have not been heard of for a while."""
    LIMITED = "limited"
    """As many jobs as are allowed at once run already."""
    WAITING = "waiting"
    """Runners that can are there, and busy or about to take it."""


@dataclass(frozen=True, kw_only=True)
class PendingReason:
    """Why a job is pending: a word for programs and a sentence for people."""

    cause: PendingCause
    text: str


@dataclass(frozen=True, kw_only=True)
class RunnerStanding:
    """What is known of a runner that has the job's spec."""

    slug: str
    capabilities: Capabilities | None
    """What it last proved; None when it never connected."""
    last_heartbeat: datetime | None


def pending_reason(
    demand: Demand,
    runners: Sequence[RunnerStanding],
    *,
    now: datetime,
    own_image: bool,
    spec_archived: bool,
    limited: bool,
) -> PendingReason:
    """Return the first thing that keeps a pending job from running.

    Args:
        demand: What its spec asks for.
        runners: The runners that have the spec and are in use.
        now: The time of day.
        own_image: Whether its image is in this server's registry.
        spec_archived: Whether the spec is out of use.
        limited: Whether a limit of jobs at once holds it back.
    """
    if spec_archived:
        return _reason(PendingCause.SPEC_ARCHIVED, "its spec is archived")
    if not runners:
        return _reason(PendingCause.NO_RUNNER, "no runner has its spec")
    lacks = {runner.slug: shortcomings(runner.capabilities, demand) for runner in runners if runner.capabilities}
    able = [runner for runner in runners if not lacks.get(runner.slug)]
    if not able:
        told = "; ".join(f"{slug}: {', '.join(found)}" for slug, found in sorted(lacks.items())[:_TOLD])
        return _reason(PendingCause.NOT_CAPABLE, f"no runner with its spec can serve it ({told})")
    if not own_image:
        able = [runner for runner in able if runner.capabilities is None or not runner.capabilities.public]
        if not able:
            text = "its image is in another registry, and only public runners could serve it"
            return _reason(PendingCause.FOREIGN_IMAGE, text)
    here = [runner for runner in able if _is_here(runner, now)]
    if not here:
        names = ", ".join(sorted(runner.slug for runner in able)[:_TOLD])
        return _reason(PendingCause.RUNNERS_AWAY, f"no runner that can serve it is connected ({names})")
    if limited:
        return _reason(PendingCause.LIMITED, "as many jobs run at once as are allowed")
    return _reason(PendingCause.WAITING, "runners that can serve it are busy with others")


def _is_here(runner: RunnerStanding, now: datetime) -> bool:
    if runner.last_heartbeat is None:
        return False
    public = runner.capabilities is not None and runner.capabilities.public
    return now - runner.last_heartbeat <= (PUBLIC_SEEN_WITHIN if public else SEEN_WITHIN)


_TOLD = 5


def _reason(cause: PendingCause, text: str) -> PendingReason:
    return PendingReason(cause=cause, text=text)
