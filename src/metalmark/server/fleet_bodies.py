"""Specs and runners as answers show them."""

from __future__ import annotations

from typing import cast

from metalmark.store import RunnerRecord, SpecRecord
from metalmark.wire import Architecture, OperatingSystem, RunnerBody, SpecBody, SpecSandbox


def spec_body(spec: SpecRecord) -> SpecBody:
    """Return a spec as REST answers, jobs and channel messages have it."""
    demand = spec.demand
    return SpecBody(
        uuid=spec.id,
        name=spec.name,
        slug=spec.slug,
        os=cast("OperatingSystem", demand.os),
        architecture=cast("Architecture", demand.architecture),
        sandbox=cast("SpecSandbox | None", demand.sandbox),
        cpu=demand.vcpus,
        memory=demand.memory_bytes,
        disk=demand.disk_bytes,
        network=demand.network,
        anonymous=spec.anonymous,
        fallback=spec.fallback,
        created=spec.created,
        modified=spec.modified,
        archived=spec.archived,
    )


def runner_body(runner: RunnerRecord) -> RunnerBody:
    """Return a runner as REST answers have it."""
    return RunnerBody(
        uuid=runner.id,
        name=runner.name,
        slug=runner.slug,
        specs=runner.spec_ids,
        archived=runner.archived,
        last_heartbeat=runner.last_heartbeat,
        created=runner.created,
        modified=runner.modified,
    )
