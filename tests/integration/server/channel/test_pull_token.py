"""What a runner pulls its job's image with opens the image while it holds the job, and then no more."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update
from starlette.requests import HTTPConnection
from tests.integration.server.channel.conftest import Rack
from tests.integration.server.channel.test_own import greeted

from metalmark.model import JobEvent, TooManyRequests, Unauthenticated
from metalmark.server.config import LimitsSection
from metalmark.server.pull_token import pull_of
from metalmark.server.rate_limits import RateLimits
from metalmark.server.registry_caller import registry_caller
from metalmark.server.signer import Audience, Pull, PullLease
from metalmark.store.tables import jobs
from metalmark.system import SystemClock


def pulls(rack: Rack, token: str) -> Pull | None:
    """What a token allows; None when it is refused."""

    async def ask(context: Any) -> Pull | None:
        try:
            claims = context.signer.read(token, Audience.RUNNER_PULL)
            async with context.store.read() as connection:
                return await pull_of(context, connection, claims)
        except Unauthenticated:
            return None

    return rack.call(ask)


def test_a_token_is_good_until_its_job_is_over(racks: Rack) -> None:
    for ending in ("completed", "canceled"):
        spec = racks.own_spec()
        runner, job = racks.runner(spec=spec), racks.submit(spec)
        token = runner.ready()["oci_token"]
        pull = pulls(racks, token)
        assert pull is not None and pull.lease is not None
        assert (pull.repository, pull.actions) == (str(racks.floor.project), ("pull",))
        assert (str(pull.lease.job), pull.lease.number) == (job, 1)
        runner.running()
        assert pulls(racks, token) == pull
        if ending == "completed":
            runner.complete(job, [{"exit_code": 0, "stdout": "", "stderr": ""}])
        else:
            racks.move(job, JobEvent.CANCEL)
        assert pulls(racks, token) is None, ending


def test_a_token_ends_with_its_lease_before_anybody_has_noticed(racks: Rack) -> None:
    spec = racks.own_spec()
    runner, job = racks.runner(spec=spec), racks.submit(spec)
    token = runner.ready()["oci_token"]
    assert pulls(racks, token) is not None

    async def run_out(context: Any) -> None:
        past = context.clock.now() - timedelta(seconds=1)
        await context.store.write(
            lambda connection: connection.execute(update(jobs).where(jobs.c.id == UUID(job)).values(lease_expires=past))
        )

    # As while the server that would end the lease is stopped.
    racks.call(run_out)
    assert racks.job(job).status.is_active
    assert pulls(racks, token) is None


def test_runners_are_counted_each_for_itself(racks: Rack) -> None:
    tokens = []
    for _ in range(2):
        spec = racks.own_spec()
        runner = racks.runner(spec=spec)
        racks.submit(spec)
        tokens.append(runner.ready()["oci_token"])
    limits = RateLimits(LimitsSection(registry_requests=2), SystemClock())

    async def ask(context: Any, token: str) -> bool:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        state = {"client_address": "192.0.2.7"}
        connection = HTTPConnection({"type": "http", "headers": headers, "state": state})
        try:
            async with context.store.read() as reading:
                await registry_caller(connection, replace(context, limits=limits), reading)
        except TooManyRequests:
            return False
        return True

    for token in tokens:
        assert [racks.call(partial(ask, token=token)) for _ in range(3)] == [True, True, False]


def test_a_token_of_an_earlier_lease_is_over(racks: Rack) -> None:
    spec = racks.own_spec()
    racks.submit(spec, retry_allowed=True)
    with greeted(racks, racks.runner(spec=spec)) as own:
        own.want(1)
        first = own.hear("job")
        lease = {"job": first["job"], "lease": first["lease"]}
        assert pulls(racks, first["oci_token"]) is not None
        assert own.tell(event="failed", error="pull", infrastructure=True, **lease)["event"] == "ack"
        assert pulls(racks, first["oci_token"]) is None, "it waits for a runner"
        own.received += 1
        own.want(1)
        second = own.hear("job")
        assert pulls(racks, first["oci_token"]) is None
        assert pulls(racks, second["oci_token"]) is not None


@pytest.mark.parametrize("wrong", ["runner", "lease", "job", "audience", "none"])
def test_a_token_that_names_another_lease_opens_nothing(racks: Rack, wrong: str) -> None:
    spec = racks.own_spec()
    runner, job = racks.runner(spec=spec), racks.submit(spec)
    runner.ready()
    found = racks.job(job)
    stranger = racks.runner().runner if wrong == "runner" else runner.runner
    lease = PullLease(job=found.report if wrong == "job" else found.id, number=2 if wrong == "lease" else 1)
    pull = Pull(repository=str(found.project), actions=("pull",), lease=None if wrong == "none" else lease)
    audience = Audience.SESSION if wrong == "audience" else Audience.RUNNER_PULL
    token = racks.server.context.signer.sign(audience, str(stranger), ttl_s=60, pull=pull).text
    assert pulls(racks, token) is None
