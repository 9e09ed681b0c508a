"""Which images the configured rules keep, on both engines; images of jobs that are still to be run stay in any case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from tests.integration.server.engines import PLACES, server_of
from tests.integration.server.registry.pushing import INDEX, Pushing, descriptor, index_of
from tests.integration.server.registry_world import RegistryWorld, make_world

from metalmark.model import Digest
from metalmark.server import ServerContext, run_submission
from metalmark.server.registry_retention import RegistryRetention
from metalmark.store import RepositoryPlace, touch_manifest
from metalmark.system import SystemClock
from metalmark.testing.running_server import RunningServer

SPEC = {"name": "s", "os": "linux", "architecture": "x86_64", "cpu": 1, "memory": 2**30, "disk": 2**30}


class LaterClock(SystemClock):
    """A clock that runs some days ahead."""

    def __init__(self, days: float) -> None:
        super().__init__()
        self._ahead = timedelta(days=days)

    def now(self) -> datetime:
        return super().now() + self._ahead


@pytest.fixture(scope="module", params=PLACES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that these tests have for themselves: the rules are for all repositories."""
    with server_of(request, tmp_path_factory) as running:
        yield running


@pytest.fixture
def world(server: RunningServer) -> RegistryWorld:
    return make_world(server)


@pytest.fixture
def repository(server: RunningServer, world: RegistryWorld) -> Iterator[Pushing]:
    with server.client() as client:
        yield Pushing(client=client, name=f"{world.private}/app")


def retention_of(server: RunningServer, *, days: float, **rules: int) -> RegistryRetention:
    """What takes turns in a server with these rules, some days from now."""
    registry = server.context.config.registry.model_copy(update=rules)
    config = server.context.config.model_copy(update={"registry": registry})
    return RegistryRetention(replace(server.context, config=config, clock=LaterClock(days)))


def turn(server: RunningServer, retention: RegistryRetention) -> tuple[int, int]:
    return server.call(lambda _context: retention.turn())


def turns(server: RunningServer, count: int = 1, *, days: float = 0.0, **rules: int) -> list[tuple[int, int]]:
    """Take turns as a server with these rules would, some days from now."""

    retention = retention_of(server, days=days, **rules)
    return [turn(server, retention) for _ in range(count)]


def there(repository: Pushing, reference: str | Digest) -> bool:
    return repository.call("HEAD", f"manifests/{reference}").status_code == 200


def submit(client: httpx.Client, world: RegistryWorld, image: str) -> dict[str, Any]:
    spec = client.post("/v0/specs", json=SPEC)
    assert spec.status_code == 201, spec.text
    job = {"image": image, "spec": spec.json()["uuid"]}
    times = {"start_time": "2026-03-01T10:00:00Z", "end_time": "2026-03-01T10:00:00Z", "results": []}
    answer = client.post("/v0/run", json={"project": world.private, "job": job, **times})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_newest_tags_stay_and_the_images_of_others_go_a_turn_later(
    server: RunningServer, repository: Pushing
) -> None:
    pushed = [Digest.of(repository.push_image(f"v{number}")) for number in range(5)]
    assert turns(server, keep_tags=2) == [(3, 0)]
    assert repository.tags() == ["v3", "v4"]
    # Within a day a manifest without a tag may be one whose push is under way.
    assert turns(server, 2, keep_tags=2) == [(0, 0), (0, 0)]
    assert turns(server, 2, days=2, keep_tags=2) == [(0, 0), (0, 3)]
    assert [there(repository, digest) for digest in pushed] == [False] * 3 + [True] * 2


def test_tags_stay_for_days_and_either_rule_keeps(server: RunningServer, repository: Pushing) -> None:
    for number in range(3):
        repository.push_image(f"v{number}")
    assert turns(server, days=6, keep_days=7) == [(0, 0)]
    assert turns(server, days=6, keep_days=7, keep_tags=1) == [(0, 0)]
    assert turns(server, days=8, keep_days=7, keep_tags=1)[0][0] >= 2
    assert repository.tags() == ["v2"]
    assert turns(server, days=8, keep_days=7)[0][0] >= 1
    assert repository.tags() == []


def test_what_a_queued_job_runs_stays(server: RunningServer, repository: Pushing, world: RegistryWorld) -> None:
    by_tag = Digest.of(repository.push_image("wanted"))
    by_digest = Digest.of(repository.push_image("held"))
    submit(repository.client, world, f"{repository.name}:wanted")
    other = submit(repository.client, world, f"{repository.name}@{by_digest}")
    repository.call("DELETE", "manifests/held")
    for number in range(2):
        repository.push_image(f"new{number}")
    turns(server, 2, days=30, keep_tags=1, keep_days=7)
    assert there(repository, "wanted")
    assert there(repository, by_tag)
    assert there(repository, by_digest)
    assert repository.tags() == ["new1", "wanted"]
    # Once the job is over, nothing keeps it.
    canceled = repository.client.post(f"/v0/projects/{world.private}/jobs/{other['job']}/cancel")
    assert canceled.status_code < 300, canceled.text
    turns(server, 2, days=30, keep_tags=1, keep_days=7)
    assert not there(repository, by_digest)
    assert there(repository, "wanted")


@contextmanager
def turn_before_jobs_are_stored(retention: RegistryRetention) -> Iterator[None]:
    """Have a turn come between the look-up of a job's image and the transaction that stores the job."""
    stored = run_submission._store

    async def store(*arguments: Any, **named: Any) -> Any:
        assert (await retention.turn())[0] >= 1, "the tag goes"
        return await stored(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_submission, "_store", store)
        yield


def test_a_turn_while_a_job_is_submitted(server: RunningServer, repository: Pushing, world: RegistryWorld) -> None:
    retention = retention_of(server, days=30, keep_tags=1)
    wanted = Digest.of(repository.push_image("wanted"))
    repository.push_image("new")
    with turn_before_jobs_are_stored(retention):
        submit(repository.client, world, f"{repository.name}:wanted")
    turn(server, retention)
    turn(server, retention)
    assert repository.tags() == ["new"]
    assert there(repository, wanted)


def test_an_image_that_was_about_to_go_gets_a_tag_and_a_job(
    server: RunningServer, repository: Pushing, world: RegistryWorld
) -> None:
    retention = retention_of(server, days=30, keep_tags=1)
    manifest = repository.push_image()
    # A turn has seen that nothing needs it. Then it gets a tag, is looked up by that, and there are too many tags.
    turn(server, retention)
    repository.push_manifest(manifest, "wanted")
    repository.push_image("new")
    with turn_before_jobs_are_stored(retention):
        submit(repository.client, world, f"{repository.name}:wanted")
    turn(server, retention)
    turn(server, retention)
    assert repository.tags() == ["new"]
    assert there(repository, Digest.of(manifest))


def test_whoever_asks_for_an_image_has_time_to_name_it(
    server: RunningServer, repository: Pushing, world: RegistryWorld
) -> None:
    one, two = repository.push_image(), repository.push_image()

    async def age(context: ServerContext) -> None:
        place, then = RepositoryPlace(project_id=world.private_id, inner="app"), context.clock.now() - timedelta(days=2)
        for manifest in (one, two):
            touch = partial(touch_manifest, place=place, digest=Digest.of(manifest), now=then)
            await context.store.write(touch)

    server.call(age)
    retention = retention_of(server, days=0, keep_tags=1)
    turn(server, retention)
    # A push of an index begins by looking whether its images are there.
    assert there(repository, Digest.of(one))
    assert turn(server, retention)[1] >= 1
    assert there(repository, Digest.of(one))
    assert not there(repository, Digest.of(two))
    repository.push_manifest(index_of([one]), "many", media_type=INDEX)


def test_what_an_index_or_a_subject_holds_goes_after_it(server: RunningServer, repository: Pushing) -> None:
    one, two = repository.push_image(), repository.push_image()
    index = index_of([one, two])
    repository.push_manifest(index, "many", media_type=INDEX)
    signature = Digest.of(repository.push_image(subject=descriptor(index, INDEX)))
    turns(server, 2, days=30, keep_tags=1)
    assert all(there(repository, Digest.of(part)) for part in (one, two, index))
    assert there(repository, signature)
    repository.call("DELETE", "manifests/many")
    turns(server, 2, days=30, keep_tags=1)
    assert not there(repository, Digest.of(index))
    turns(server, 2, days=30, keep_tags=1)
    assert not any(there(repository, digest) for digest in (Digest.of(one), Digest.of(two), signature))


def test_without_rules_everything_stays(server: RunningServer, repository: Pushing) -> None:
    untagged = Digest.of(repository.push_image())
    repository.push_image("v1")

    async def run(context: ServerContext) -> None:
        await RegistryRetention(context).run()

    server.call(run)
    assert there(repository, untagged)
    assert there(repository, "v1")
