"""Submitted runs over real sockets: who may, which image, what is stored, and what a refusal leaves behind."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select
from tests.integration.server.engines import ENGINES, server_of

from metalmark.model import JobEvent, public_runner
from metalmark.server import ServerContext
from metalmark.server.job_desk import Ending, JobDesk
from metalmark.store import JobRecord, LeaseHolder, find_job
from metalmark.store.tables import audit_log, branches, jobs, organizations, projects, reports, testbeds, versions
from metalmark.testing.images import FakeImage
from metalmark.testing.registry import StandInRegistry
from metalmark.testing.running_server import RunningServer
from metalmark.wire import JobOutput

TIMES: dict[str, Any] = {"start_time": "2026-03-01T10:00:00Z", "end_time": "2026-03-01T10:00:42Z", "results": []}
SPEC = {"os": "linux", "architecture": "x86_64", "sandbox": "firecracker", "cpu": 2, "memory": 2**32, "disk": 2**33}
DIGEST = "sha256:" + "0a" * 32
TABLES = (organizations, projects, branches, versions, testbeds, reports, jobs, audit_log)
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def registry() -> Iterator[StandInRegistry]:
    with StandInRegistry() as running:
        running.push(FakeImage(), "v1")
        yield running


@pytest.fixture(scope="module", params=ENGINES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, registry: StandInRegistry
) -> Iterator[RunningServer]:
    """A server that takes runs of strangers, and images of the registry."""
    settings: dict[str, dict[str, Any]] = {
        "auth": {"anonymous": True},
        "registry": {"allowed": [registry.name], "url": "http://bench.example:6610/"},
        "jobs": {"timeout_s": 1234},
    }
    with server_of(request, tmp_path_factory, settings=settings) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def stranger(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client(None) as client:
        yield client


def name(prefix: str = "thing") -> str:
    return f"{prefix}-{next(numbers)}z"


def made(client: httpx.Client, path: str, **body: object) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def make_project(client: httpx.Client) -> str:
    owner = made(client, "/v0/organizations", name=name("org"))
    slug: str = made(client, f"/v0/organizations/{owner['slug']}/projects", name=name("project"))["slug"]
    return slug


def make_spec(client: httpx.Client, **fields: object) -> dict[str, Any]:
    return made(client, "/v0/specs", name=name("spec"), **{**SPEC, **fields})


def run(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v0/run", json={**TIMES, **fields})


def job_of(server: RunningServer, answer: httpx.Response) -> JobRecord:
    assert answer.status_code == 201, answer.text

    async def read(context: ServerContext) -> JobRecord | None:
        async with context.store.read() as connection:
            return await find_job(connection, UUID(answer.json()["job"]))

    found = server.call(read)
    assert found is not None
    return found


def counted(server: RunningServer) -> list[int]:
    """How many rows each table has, and how many results there are."""

    async def count(context: ServerContext) -> list[int]:
        async with context.store.read() as connection:
            rows = [
                (await connection.execute(select(func.count()).select_from(table))).scalar_one() for table in TABLES
            ]
        return [*rows, len(await context.blobs.below("results"))]

    return server.call(count)


def test_a_job_carries_what_was_submitted_and_the_digest_of_that_moment(
    server: RunningServer, client: httpx.Client, registry: StandInRegistry
) -> None:
    digest = registry.push(FakeImage(), "moving")
    job = {
        "image": f"{registry.name}/app:moving",
        "spec": make_spec(client)["slug"],
        "entrypoint": ["/bin/sh"],
        "cmd": ["-c", "bench "],
        "env": {"MODE": "ci"},
        "timeout": 240,
        "file_paths": ["/out/bmf.json"],
        "build_time": True,
        "iter": 3,
        "allow_failure": False,
        "backdate": "2026-01-01T02:00:00+02:00",
        "retry": True,
    }
    settings = {"adapter": "cpp", "average": "median", "fold": "min"}
    project = make_project(client)
    answer = run(client, project=project, job=job, settings=settings)
    assert answer.json()["adapter"] == "magic"
    stored = job_of(server, answer)
    assert stored.config == {
        "registry": f"http://{registry.name}/",
        "repository": "app",
        "project": answer.json()["project"]["uuid"],
        "digest": str(digest),
        "image": job["image"],
        "timeout": 240,
        "entrypoint": ["/bin/sh"],
        "cmd": ["-c", "bench "],
        "env": {"MODE": "ci"},
        "file_paths": ["/out/bmf.json"],
        "build_time": True,
        "iter": 3,
        "allow_failure": False,
        "average": "median",
        "fold": "min",
        "backdate": "2026-01-01T00:00:00Z",
    }
    assert (stored.timeout_s, stored.iterations, stored.priority) == (240, 3, 100)
    assert (stored.retry_allowed, stored.own_image, stored.anonymous) == (True, False, False)
    assert stored.source == "127.0.0.1"
    assert stored.pending_expires is not None
    assert (stored.pending_expires - stored.created).days == 7


def test_what_a_job_does_not_say_has_defaults(server: RunningServer, client: httpx.Client) -> None:
    job = {"image": f"adder@{DIGEST}", "spec": make_spec(client)["slug"]}
    stored = job_of(server, run(client, project=make_project(client), job=job))
    assert (stored.timeout_s, stored.iterations, stored.retry_allowed, stored.own_image) == (1234, 1, False, True)
    assert stored.config["registry"] == "http://bench.example:6610/"
    assert set(stored.config) == {"registry", "project", "digest", "image", "timeout"}


@pytest.mark.parametrize(
    ("status", "failures"),
    [(400, [(404, {})]), (400, [(403, {})]), (503, [(500, {})] * 4), (503, [(429, {"Retry-After": "1"})] * 4)],
)
def test_a_registry_that_has_no_image_just_now(
    server: RunningServer,
    client: httpx.Client,
    registry: StandInRegistry,
    status: int,
    failures: list[tuple[int, dict[str, str]]],
) -> None:
    spec, project = make_spec(client)["slug"], make_project(client)
    before = counted(server)
    registry.behaviour.failures[:] = failures
    try:
        answer = run(client, project=project, job={"image": f"{registry.name}/app:v1", "spec": spec})
    finally:
        registry.behaviour.failures.clear()
    assert answer.status_code == status, answer.text
    assert ("retry-after" in answer.headers) == (status == 503)
    assert counted(server) == before


def test_nobody_has_the_registry_asked_for_what_they_may_not_run(
    server: RunningServer, client: httpx.Client, stranger: httpx.Client, registry: StandInRegistry
) -> None:
    project, spec, seen = make_project(client), make_spec(client, anonymous=True)["slug"], len(registry.seen)
    job = {"image": f"{registry.name}/app:v1", "spec": spec}
    assert run(stranger, project=project, job=job).status_code == 401
    assert run(client, project=name("missing"), job=job).status_code == 400
    assert len(registry.seen) == seen


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (404, {"branch": "0197d0d0-0000-7000-8000-0000000000aa"}),
        (404, {"testbed": "0197d0d0-0000-7000-8000-0000000000aa"}),
        (404, {"job": {"image": f"adder@{DIGEST}", "spec": "no-such-spec"}}),
        (400, {"job": {"image": f"adder@{DIGEST}"}}),
        (400, {"job": {"image": "adder:v1"}}),
        (400, {"job": {"image": "quay.io/adder:v1"}}),
    ],
)
def test_a_run_that_is_refused_leaves_nothing(
    server: RunningServer, client: httpx.Client, status: int, fields: dict[str, Any]
) -> None:
    before = counted(server)
    context = {"bencher.dev/v0/repo/name": name("never made")}
    answer = run(client, **{"context": context, "branch": name(), "testbed": name(), "results": ["{}"], **fields})
    assert answer.status_code == status, answer.text
    assert counted(server) == before


def test_raw_results_are_kept_in_full_and_go_with_their_report(server: RunningServer, client: httpx.Client) -> None:
    project, before = make_project(client), counted(server)[-1]
    results = ['{"a": {"latency": {"value": 1.0}}}', "", "\u0000 ü \U0001f40c"]
    report = run(client, project=project, results=results).json()
    assert (report["results"], report["counts"]["results"]) == ([], [])

    async def read(context: ServerContext) -> object:
        return json.loads(await context.blobs.get(f"results/{report['uuid']}.json"))

    assert server.call(read) == results
    assert counted(server)[-1] == before + 1
    assert client.delete(f"/v0/projects/{project}/reports/{report['uuid']}").status_code == 204
    assert client.get(f"/v0/projects/{project}/reports/{report['uuid']}").status_code == 404
    assert counted(server)[-1] == before


def test_a_repeated_key_keeps_the_results_of_the_first(server: RunningServer, client: httpx.Client) -> None:
    project, key = make_project(client), "7c0e5ad2-2d63-4a3e-9d58-3a3b0e0f4a11"
    first = run(client, project=project, idempotency_key=key, results=["one"]).json()
    before = counted(server)
    again = run(client, project=project, idempotency_key=key, results=["two"], branch="other", job={"image": "x"})
    assert (again.status_code, again.json()) == (201, first)
    assert counted(server) == before
    # Another project has keys of its own.
    assert run(client, project=make_project(client), idempotency_key=key).json()["uuid"] != first["uuid"]


def test_a_stranger_makes_an_unclaimed_project_that_the_next_user_claims(
    server: RunningServer, client: httpx.Client, stranger: httpx.Client
) -> None:
    slug, context = name("found"), {"bencher.dev/v0/repo/name": "Widgets"}
    first = run(stranger, project=slug, context=context)
    assert first.status_code == 201, first.text
    project = first.json()["project"]
    assert (project["slug"], project["name"], project["claimed"]) == (slug, "Widgets", None)
    assert project["uuid"] == project["organization"]
    assert first.json()["user"] is None
    assert run(stranger, project=slug).status_code == 201
    claimed = run(client, project=slug)
    assert claimed.status_code == 201
    assert claimed.json()["project"]["claimed"] is not None
    assert run(stranger, project=slug).status_code == 401
    # Its organization has a member now, so strangers make no project of that name any more.
    assert client.delete(f"/v0/projects/{slug}").status_code == 204
    assert run(stranger, project=slug, context=context).status_code == 401


def test_a_strangers_job_runs_only_on_specs_marked_for_it(
    server: RunningServer, client: httpx.Client, stranger: httpx.Client
) -> None:
    closed, open_ = make_spec(client)["slug"], make_spec(client, anonymous=True)["slug"]
    slug, context = name("job"), {"bencher.dev/v0/repo/name": "Widgets"}

    def submit(**job: object) -> httpx.Response:
        return run(stranger, project=slug, context=context, job={"image": f"adder@{DIGEST}", **job})

    assert submit(spec=closed).status_code == 401
    assert client.get(f"/v0/projects/{slug}").status_code == 404
    stored = job_of(server, submit(spec=open_))
    assert (stored.anonymous, stored.priority) == (True, 0)
    assert submit(spec=open_, priority=1).status_code == 401
    # The fallback counts for strangers only when it is marked too; what a testbed remembers is no way round.
    assert client.patch(f"/v0/specs/{closed}", json={"fallback": True}).status_code == 200
    try:
        assert submit().status_code == 400
        assert job_of(server, run(client, project=make_project(client), job={"image": f"x@{DIGEST}"})).priority == 100
    finally:
        assert client.patch(f"/v0/specs/{closed}", json={"fallback": False}).status_code == 200


def test_a_priority_above_the_usual_needs_who_manages_the_project(server: RunningServer, client: httpx.Client) -> None:
    project = make_project(client)
    key = made(client, f"/v0/projects/{project}/keys", name="ci")["key"]
    job = {"image": f"adder@{DIGEST}", "spec": make_spec(client)["slug"]}
    with server.client(key) as holder:
        for wanted, status in ((0, 201), (100, 201), (101, 403), (1000, 403)):
            answer = run(holder, job={**job, "priority": wanted})
            assert answer.status_code == status, answer.text
            if status == 201:
                assert job_of(server, answer).priority == wanted
    assert job_of(server, run(client, project=project, job={**job, "priority": 1000})).priority == 1000


def test_projects_of_one_name_are_numbered(client: httpx.Client) -> None:
    long = "a-repository-with-a-very-long-name-that-goes-on-" + name()
    names = []
    for _ in range(3):
        context = {"bencher.dev/v0/repo/name": long, "bencher.dev/v0/testbed/fingerprint": name("m")}
        answer = run(client, context=context)
        assert answer.status_code == 201, answer.text
        names.append(answer.json()["project"]["name"])
    assert names == [long, f"{long[:38]}... (1)", f"{long[:38]}... (2)"]


def test_the_testbed_of_a_job_is_named_after_its_spec(client: httpx.Client) -> None:
    project, spec = make_project(client), make_spec(client)
    job = {"image": f"adder@{DIGEST}", "spec": spec["uuid"]}
    first = run(client, project=project, job=job, context={"bencher.dev/v0/testbed/os": "Linux"}).json()
    assert first["testbed"]["name"] == spec["name"]
    assert first["testbed"]["spec"]["uuid"] == spec["uuid"]
    path = f"/v0/projects/{project}/testbeds/{first['testbed']['slug']}"
    assert client.get(path).json()["spec"]["uuid"] == spec["uuid"]
    # The testbed remembers it; a report without a job has none all the same.
    named = {"project": project, "testbed": first["testbed"]["slug"]}
    assert run(client, **named, job={"image": f"adder@{DIGEST}"}).status_code == 201
    assert run(client, **named).json()["testbed"]["spec"] is None
    assert client.get(path).json()["spec"]["uuid"] == spec["uuid"]
    assert run(client, **named, spec_reset=True).status_code == 201
    assert client.get(path).json()["spec"] is None
    assert run(client, **named, job={"image": f"adder@{DIGEST}"}).status_code == 400


def test_reports_are_listed_by_time_branch_testbed_and_archive(client: httpx.Client) -> None:
    project = make_project(client)
    path = f"/v0/projects/{project}/reports"

    def submit(hour: int, branch: str, testbed: str) -> str:
        times = {"start_time": f"2026-03-01T{hour:02}:00:00Z", "end_time": f"2026-03-01T{hour:02}:30:00Z"}
        uuid: str = run(client, project=project, branch=branch, testbed=testbed, **times).json()["uuid"]
        return uuid

    late, early, other = submit(12, "main", "a"), submit(8, "main", "b"), submit(10, "feature/x", "a")

    def listed(**query: object) -> list[str]:
        answer = client.get(path, params={key: str(value) for key, value in query.items()})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-total-count"] == str(len(answer.json()))
        return [one["uuid"] for one in answer.json()]

    assert listed() == [late, other, early]
    assert listed(direction="asc") == [early, other, late]
    assert listed(branch="feature/x") == [other]
    assert listed(testbed="a") == [late, other]
    assert listed(branch="nowhere") == []
    nine = 1_772_355_600_000
    assert listed(start_time=nine) == [late, other]
    assert listed(end_time=nine) == [early]
    assert listed(start_time=nine, branch="main") == [late]
    for bad in ("2026-03-01", "1.5", "9" * 17, ""):
        assert client.get(path, params={"start_time": bad}).status_code == 400
    assert client.patch(f"/v0/projects/{project}/branches/main", json={"archived": True}).status_code == 200
    assert listed() == [other]
    assert listed(archived="true") == [late, early]
    (shown,) = client.get(path).json()
    assert "results" not in shown
    (full,) = client.get(path, params={"expand": "true"}).json()
    assert (full["results"], full["alerts"]) == ([], [])


def test_what_is_hidden_is_not_told_to_who_submits(server: RunningServer, client: httpx.Client) -> None:
    hidden, public, own = (make_project(client) for _ in range(3))
    identifier = client.patch(f"/v0/projects/{hidden}", json={"visibility": "private"}).json()["uuid"]
    key = made(client, f"/v0/projects/{own}/keys", name="ci")["key"]
    nowhere = name("nowhere")
    with server.client(key) as holder:
        there, missing = run(holder, project=hidden), run(holder, project=nowhere)
        assert run(holder, project=public).status_code == 401
        assert run(holder, project=own).status_code == 201
    assert (there.status_code, missing.status_code) == (404, 404)
    assert there.json()["message"].replace(hidden, nowhere) == missing.json()["message"]
    with server.client(None) as stranger:
        refused = run(stranger, project=hidden, context={})
    assert refused.status_code == 404
    assert identifier not in refused.text


def test_the_key_of_a_project_changes_no_names(server: RunningServer, client: httpx.Client) -> None:
    project = make_project(client)
    key = made(client, f"/v0/projects/{project}/keys", name="ci")["key"]
    with server.client(key) as holder:
        run(holder, branch="main", testbed="rack")
        for path in ("branches/main", "testbeds/rack"):
            place = f"/v0/projects/{project}/{path}"
            assert holder.patch(place, json={"archived": True}).status_code == 200
            assert holder.patch(place, json={"name": "other"}).status_code == 403
            assert holder.patch(place, json={"slug": "other"}).status_code == 403
            assert holder.delete(place).status_code == 403
            assert client.patch(place, json={"name": name()}).status_code == 200


def test_first_runs_at_once_make_one_project_under_its_own_slug(server: RunningServer, client: httpx.Client) -> None:
    slug = name("race")
    context = {"bencher.dev/v0/repo/name": slug}
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: run(client, project=slug, context=context), range(8)))
    assert [answer.status_code for answer in answers] == [201] * 8
    assert {answer.json()["project"]["slug"] for answer in answers} == {slug}
    assert len({answer.json()["project"]["uuid"] for answer in answers}) == 1
    assert sorted(answer.json()["branch"]["head"]["version"]["number"] for answer in answers) == list(range(8))


def test_the_report_of_a_job_gets_its_times(server: RunningServer, client: httpx.Client) -> None:
    spec = make_spec(client)
    runner = made(client, "/v0/runners", name=name("runner"))
    made(client, f"/v0/runners/{runner['uuid']}/specs", spec=spec["uuid"])
    job = {"image": f"adder@{DIGEST}", "spec": spec["slug"], "backdate": "2020-01-01T00:00:00Z"}
    project = make_project(client)
    submitted = run(client, project=project, job=job).json()

    async def carry_out(context: ServerContext) -> None:
        claimed = await context.dispatcher.wait_for_job(
            runner=UUID(runner["uuid"]), capabilities=public_runner(), deadline_s=context.clock.monotonic_s() + 10
        )
        assert claimed is not None
        assert str(claimed.job) == submitted["job"]
        desk, holder = JobDesk(context), LeaseHolder(runner=claimed.runner, lease=claimed.lease)
        await desk.start(claimed.job, holder, began=True)
        await desk.end(claimed.job, holder, Ending(event=JobEvent.COMPLETE, output=JobOutput(results=())))

    server.call(carry_out)
    report = client.get(f"/v0/projects/{project}/reports/{submitted['uuid']}").json()
    assert report["start_time"] == "2020-01-01T00:00:00Z"
    assert report["end_time"].startswith("2020-01-01T00:0")
    assert client.get(f"/v0/projects/{project}/jobs/{submitted['job']}").json()["status"] == "processed"
    # A job that has run goes with its report, output and all.
    assert client.delete(f"/v0/projects/{project}/reports/{submitted['uuid']}").status_code == 204
    assert client.get(f"/v0/projects/{project}/jobs/{submitted['job']}").status_code == 404

    async def outputs(context: ServerContext) -> object:
        return await context.blobs.below(f"outputs/{submitted['project']['uuid']}")

    assert server.call(outputs) == ()
