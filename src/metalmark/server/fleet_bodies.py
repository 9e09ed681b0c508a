"""Specs and runners as answers show them."""

from __future__ import annotations

from typing import cast

from metalmark.store import RunnerProof, RunnerRecord, SpecRecord
from metalmark.wire import Architecture, OperatingSystem, RunnerBody, RunnerProofBody, SpecBody, SpecSandbox


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


def runner_body(runner: RunnerRecord, proof: RunnerProof | None = None) -> RunnerBody:
    """Return a runner as REST answers have it; with what it said of itself where it is shown alone."""
    return RunnerBody(
        uuid=runner.id,
        name=runner.name,
        slug=runner.slug,
        specs=runner.spec_ids,
        archived=runner.archived,
        last_heartbeat=runner.last_heartbeat,
        key_created=runner.key_created,
        created=runner.created,
        modified=runner.modified,
        proof=None if proof is None else _proof_body(proof),
    )


def _proof_body(proof: RunnerProof) -> RunnerProofBody:
    said = proof.capabilities
    return RunnerProofBody(
        proved=proof.proved,
        version=proof.version,
        protocol=proof.protocol,
        os=said.os,
        architecture=said.architecture,
        sandboxes=tuple(sorted(name or "none" for name in said.sandboxes)),
        cpu=said.vcpus,
        memory=said.memory_bytes,
        disk=said.disk_bytes,
        network=said.network,
        facts=None if proof.facts is None else dict(proof.facts),
    )
