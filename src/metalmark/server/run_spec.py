"""The spec and the testbed of a job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from metalmark.model import InputError, NotFound, ResourceId, ResourceName, Slug, Unauthenticated
from metalmark.store import (
    Connection,
    SpecRecord,
    TestbedRecord,
    find_fallback_spec,
    find_spec,
    find_testbed_of_run,
    testbed_for_run,
)


@dataclass(frozen=True, kw_only=True)
class JobPlace:
    """Where a job measures."""

    spec: SpecRecord
    testbed: TestbedRecord


async def place_job(
    connection: Connection,
    *,
    project_id: UUID,
    spec: ResourceId | None,
    testbed: UUID | Slug | ResourceName | None,
    anonymous: bool,
    now: datetime,
) -> JobPlace:
    """Choose a job's spec, and the testbed that it is recorded on.

    The spec is the one that is named, else the one that the named testbed remembers, else the server's fallback. A
    testbed remembers the spec that was chosen for it; without one named, it is the testbed of the spec's name.

    Args:
        connection: Of a write.
        project_id: Whose job.
        spec: As the run names it.
        testbed: As the run itself names it.
        anonymous: Whether nobody in particular submits it; then only specs that are marked for that will do.
        now: The time of day.

    Raises:
        NotFound: There is no such spec, or it is archived; or no testbed of this UUID.
        Unauthenticated: The spec is not for strangers.
        InputError: No spec is named, and there is none to fall back to.
    """
    if spec is not None:
        named = await find_spec(connection, spec)
        if named is None or named.archived is not None:
            raise NotFound("spec", spec, hint="an archived spec takes no jobs")
        chosen = _permitted(named, anonymous=anonymous)
    else:
        remembered = await _remembered(connection, project_id, testbed)
        if remembered is not None and testbed is not None:
            kept = await testbed_for_run(connection, project_id=project_id, identifier=testbed, now=now)
            return JobPlace(spec=_permitted(remembered, anonymous=anonymous), testbed=kept)
        chosen = await _fallback(connection, anonymous=anonymous)
    place = await testbed_for_run(
        connection,
        project_id=project_id,
        identifier=testbed if testbed is not None else chosen.name,
        spec_id=chosen.id,
        now=now,
    )
    return JobPlace(spec=chosen, testbed=place)


async def _remembered(
    connection: Connection, project_id: UUID, testbed: UUID | Slug | ResourceName | None
) -> SpecRecord | None:
    if testbed is None:
        return None
    found = await find_testbed_of_run(connection, project_id=project_id, identifier=testbed)
    if found is None or found.spec_id is None:
        return None
    spec = await find_spec(connection, found.spec_id)
    return spec if spec is not None and spec.archived is None else None


async def _fallback(connection: Connection, *, anonymous: bool) -> SpecRecord:
    found = await find_fallback_spec(connection)
    if found is None or found.archived is not None or (anonymous and not found.anonymous):
        why = "the testbed remembers no spec, and the server has none to fall back to"
        raise InputError("job.spec", "missing", why, hint="name a spec")
    return found


def _permitted(spec: SpecRecord, *, anonymous: bool) -> SpecRecord:
    if anonymous and not spec.anonymous:
        raise Unauthenticated(f"the spec {spec.slug} takes no jobs of strangers", hint="send a credential")
    return spec
