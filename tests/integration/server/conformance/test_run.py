"""``POST /v0/run``: target project, defaults of branch and testbed, idempotency, jobs with spec and testbed choice."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest

from metalmark.testing.public_shapes import Job, Report

CONTEXT = {
    "bencher.dev/v0/repo/name": "widgets",
    "bencher.dev/v0/repo/hash": "6b1f0c9d2e3a4b5c6d7e8f90112233445566778a",
    "bencher.dev/v0/branch/ref": "refs/heads/feature/fast",
    "bencher.dev/v0/branch/ref/name": "feature/fast",
    "bencher.dev/v0/branch/hash": "00000000000000000000000000000000000000ab",
    "bencher.dev/v0/testbed/os": "Linux",
    "bencher.dev/v0/testbed/fingerprint": "abc123def456g",
}


@pytest.fixture(autouse=True)
def no_fallback(world: Any) -> None:
    """A fallback spec that another test left behind would answer for a missing one."""
    world.clear_fallback()


def test_a_run_without_a_job_is_a_report(world: Any) -> None:
    project = world.make_project()
    answer = world.run(project=project["slug"], context=CONTEXT)
    assert answer.status_code == 201, answer.text
    report = Report.model_validate_json(answer.content)
    assert report.job is None
    assert "job" not in answer.json()
    assert (report.branch.name, report.testbed.name) == ("feature/fast", "Linux")
    assert report.branch.head.version is not None
    assert report.branch.head.version.hash == CONTEXT["bencher.dev/v0/branch/hash"]
    assert report.adapter == "magic"
    assert report.project.uuid == project["uuid"]


def test_defaults_without_any_context(world: Any) -> None:
    report = world.run(project=world.make_project()["uuid"]).json()
    assert (report["branch"]["name"], report["testbed"]["name"]) == ("main", "localhost")


def test_a_default_that_is_no_name_falls_through(world: Any) -> None:
    odd = {**CONTEXT, "bencher.dev/v0/branch/ref/name": "bad..ref", "bencher.dev/v0/branch/hash": "xyz"}
    report = world.run(project=world.make_project()["slug"], context=odd).json()
    assert report["branch"]["name"] == "main"
    assert report["branch"]["head"]["version"]["hash"] is None


def test_a_project_is_made_from_the_context(world: Any) -> None:
    fingerprint = uuid.uuid4().hex[:13]
    context = {**CONTEXT, "bencher.dev/v0/testbed/fingerprint": fingerprint}
    answer = world.run(context=context, by=world.owner.key)
    assert answer.status_code == 201, answer.text
    project = answer.json()["project"]
    assert project["slug"] == f"widgets-6b1f0c9-{fingerprint}"
    assert project["name"].startswith("widgets")
    assert project["organization"] == world.owner.uuid
    again = world.run(context=context, by=world.owner.key).json()["project"]
    assert again["uuid"] == project["uuid"]


def test_a_named_project_is_made_with_its_slug(world: Any) -> None:
    slug = world.slug_of(world.name("made"))
    assert world.run(project=slug, by=world.owner.key).status_code == 400
    answer = world.run(project=slug, context=CONTEXT, by=world.owner.key)
    assert (answer.status_code, answer.json()["project"]["slug"]) == (201, slug)
    unnamed = world.run(project=world.slug_of(world.name("made")), context={"x": "y"}, by=world.owner.key)
    assert unnamed.json()["project"]["name"].startswith("Project")


def test_targets_that_are_not_there(world: Any) -> None:
    assert world.run(project=str(uuid.uuid4()), context=CONTEXT).status_code == 404
    assert world.run(project="Not A Slug").status_code == 400
    assert world.run().status_code == 400
    assert world.run(context={}).status_code == 400
    assert world.run(project=world.make_project()["slug"], branch=str(uuid.uuid4())).status_code == 404
    assert world.run(project=world.make_project()["slug"], testbed=str(uuid.uuid4())).status_code == 404


def test_strangers_are_kept_out(world: Any) -> None:
    project, hidden = world.make_project(), world.make_project(visibility="private")
    assert world.run(project=project["slug"], by=None).status_code == 401
    assert world.run(project=project["slug"], by=world.user.key).status_code == 403
    assert world.run(project=hidden["slug"], by=None).status_code in {401, 404}
    assert world.run(project=hidden["slug"], by=world.user.key).status_code in {403, 404}
    assert world.run(context=CONTEXT, by=None).status_code == 401
    assert world.run(project=project["slug"], by=world.runner_key).status_code == 401
    assert world.get(f"/v0/projects/{project['slug']}/reports").json() == []


def test_a_project_key_runs_its_own_project(world: Any) -> None:
    project, other = world.make_project(), world.make_project()
    key = world.project_key(project)
    answer = world.run(by=key)
    assert (answer.status_code, answer.json()["project"]["uuid"]) == (201, project["uuid"])
    assert answer.json()["user"] is None
    assert world.run(project=project["slug"], by=key).status_code == 201
    assert world.run(project=other["slug"], by=key).status_code == 401
    assert world.run(project="there-is-none", by=key).status_code == 404


def test_the_same_idempotency_key_is_the_same_report(world: Any) -> None:
    project, other = world.make_project(), world.make_project()
    key = str(uuid.uuid4())
    first = world.run(project=project["slug"], idempotency_key=key, branch="one")
    again = world.run(project=project["slug"], idempotency_key=key.upper(), branch="two")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    elsewhere = world.run(project=other["slug"], idempotency_key=key)
    assert elsewhere.json()["uuid"] != first.json()["uuid"]
    assert len(world.get(f"/v0/projects/{project['slug']}/reports").json()) == 1
    assert [row["name"] for row in world.get(f"/v0/projects/{project['slug']}/branches").json()] == ["one"]


def test_one_idempotency_key_sent_many_times_at_once_makes_one_job(world: Any) -> None:
    project, spec, key = world.make_project(), world.make_spec(), str(uuid.uuid4())
    answers: list[Any] = []

    def send() -> None:
        answers.append(
            world.run(project=project["slug"], idempotency_key=key, job={"image": world.image, "spec": spec["uuid"]})
        )

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["uuid"] for answer in answers if answer.status_code == 201}) == 1
    assert len(world.get(f"/v0/projects/{project['slug']}/jobs").json()) == 1
    assert len(world.get(f"/v0/projects/{project['slug']}/reports").json()) == 1


def test_a_new_branch_named_many_times_at_once_is_made_once(world: Any) -> None:
    project = world.make_project()
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(world.run(project=project["slug"], branch="b", testbed="t")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [201] * 6
    assert len({answer.json()["branch"]["uuid"] for answer in answers}) == 1
    numbers = sorted(answer.json()["branch"]["head"]["version"]["number"] for answer in answers)
    assert numbers == list(range(6))


def test_a_job_is_pending_and_its_report_is_empty(world: Any) -> None:
    project, spec = world.make_project(), world.make_spec()
    job = {"image": world.image, "spec": spec["slug"], "cmd": ["bench"], "timeout": 240, "iter": 3}
    answer = world.run(project=project["slug"], job=job, results=["not parsed"])
    assert answer.status_code == 201, answer.text
    report = Report.model_validate_json(answer.content)
    assert report.job is not None
    assert (report.results, report.alerts, report.counts.results) == ([], [], [])
    assert report.testbed.name == spec["slug"] or report.testbed.name == spec["name"]
    assert report.testbed.spec is not None
    assert report.testbed.spec.uuid == spec["uuid"]
    at = f"/v0/projects/{project['slug']}/jobs/{report.job}"
    seen = world.get(at, by=world.owner.key)
    shown = Job.model_validate_json(seen.content)
    assert (shown.status, shown.spec.uuid) == ("pending", spec["uuid"])
    assert [seen.json()[name] for name in ("runner", "claimed", "started", "completed")] == [None] * 4
    assert seen.json().get("config") is None
    assert "output" not in seen.json()
    listed = world.get(f"/v0/projects/{project['slug']}/jobs?status=pending").json()
    assert [row["uuid"] for row in listed] == [report.job]
    assert world.get(f"/v0/projects/{project['slug']}/jobs?status=running").json() == []
    assert world.get(f"/v0/projects/{project['slug']}/jobs?status=Pending").status_code == 400
    other = world.make_project()
    assert world.get(f"/v0/projects/{other['slug']}/jobs/{report.job}").status_code == 404


def test_which_spec_and_testbed_a_job_gets(world: Any) -> None:
    project = world.make_project()["slug"]
    remembered, named, fallback = world.make_spec(), world.make_spec(), world.make_spec()

    def submit(**fields: Any) -> Any:
        job = {"image": world.image, **fields.pop("job", {})}
        return world.run(project=project, job=job, context=CONTEXT, **fields)

    assert submit().status_code == 400
    assert submit(testbed="rack").status_code == 400
    first = submit(testbed="rack", job={"spec": remembered["uuid"]}).json()["testbed"]
    assert (first["name"], first["spec"]["uuid"]) == ("rack", remembered["uuid"])
    second = submit(testbed="rack").json()["testbed"]
    assert (second["uuid"], second["spec"]["uuid"]) == (first["uuid"], remembered["uuid"])
    moved = submit(testbed="rack", job={"spec": named["slug"]}).json()["testbed"]
    assert (moved["uuid"], moved["spec"]["uuid"]) == (first["uuid"], named["uuid"])
    alone = submit(job={"spec": named["slug"]}).json()["testbed"]
    assert alone["uuid"] != first["uuid"]
    assert alone["spec"]["uuid"] == named["uuid"]
    world.patch(f"/v0/specs/{fallback['uuid']}", {"fallback": True}, by=world.admin.jwt)
    fell = submit().json()["testbed"]
    assert fell["spec"]["uuid"] == fallback["uuid"]
    assert submit(testbed="rack").json()["testbed"]["spec"]["uuid"] == named["uuid"]
    world.patch(f"/v0/projects/{project}/testbeds/{first['uuid']}", {"archived": True}, by=world.owner.jwt)
    assert submit(testbed="rack").json()["testbed"]["archived"] is None
    world.patch(f"/v0/specs/{named['uuid']}", {"archived": True}, by=world.admin.jwt)
    assert submit(job={"spec": named["uuid"]}).status_code == 404
    assert submit(testbed="rack").json()["testbed"]["spec"]["uuid"] == fallback["uuid"]
    assert submit(job={"spec": "there-is-none"}).status_code == 404
    world.patch(f"/v0/specs/{fallback['uuid']}", {"archived": True}, by=world.admin.jwt)
    assert submit().status_code == 400


def test_spec_reset_clears_what_a_testbed_remembers(world: Any) -> None:
    project, spec = world.make_project()["slug"], world.make_spec()
    world.run(project=project, testbed="rack", job={"image": world.image, "spec": spec["uuid"]})
    path = f"/v0/projects/{project}/testbeds/rack"
    assert world.get(path).json()["spec"]["uuid"] == spec["uuid"]
    plain = world.run(project=project, testbed="rack").json()
    assert plain["testbed"]["spec"] is None
    assert world.get(path).json()["spec"]["uuid"] == spec["uuid"]
    world.run(project=project, testbed="rack", spec_reset=True)
    assert world.get(path).json()["spec"] is None


@pytest.mark.parametrize(
    "reference",
    [
        "",
        " ",
        "registry.example.org/app:v1",
        "{registry}/app:there-is-no-tag",
        "{registry}/app@sha256:zz",
        "a b",
        "{registry}/app@sha256:" + "A" * 64,
        "{registry}/UPPER:v1",
        "{registry}",
        "http://{registry}/app",
        "../app",
    ],
)
def test_images_that_are_refused(world: Any, reference: str) -> None:
    project, spec = world.make_project(), world.make_spec()
    image = reference.replace("{registry}", world.registry)
    answer = world.run(project=project["slug"], job={"image": image, "spec": spec["uuid"]})
    assert answer.status_code == 400, answer.text
    assert world.get(f"/v0/projects/{project['slug']}/jobs").json() == []
    assert world.get(f"/v0/projects/{project['slug']}/reports").json() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("entrypoint", ["x"] * 65), ("entrypoint", "sh"), ("entrypoint", [1]), ("cmd", ["x"] * 65), ("cmd", {})]
    + [("env", {f"k{n}": "v" for n in range(256)}), ("env", {"a": 1}), ("env", ["a=b"])]
    + [("file_paths", ["/x"] * 256), ("file_paths", [None])]
    + [("timeout", value) for value in (0, -1, 2**31, 1.0, "60", True)]
    + [("iter", value) for value in (-1, 2**32, 1.0, "1")]
    + [("build_time", "true"), ("file_size", 1), ("allow_failure", "no"), ("backdate", "yesterday"), ("backdate", 5)]
    + [("image", None), ("image", 5), ("spec", "Not A Slug"), ("spec", 5), ("priority", "high"), ("priority", -1)],
    ids=lambda value: repr(value)[:24],
)
def test_a_job_out_of_bounds_is_400_and_leaves_nothing(world: Any, field: str, value: object) -> None:
    project, spec = world.make_project(), world.make_spec()
    job = {"image": world.image, "spec": spec["uuid"], field: value}
    answer = world.run(project=project["slug"], job=job)
    assert answer.status_code == 400, answer.text
    assert world.get(f"/v0/projects/{project['slug']}/reports").json() == []


@pytest.mark.parametrize(("field", "value"), [("timeout", 86_401), ("iter", 24)])
def test_a_job_that_may_take_longer_than_a_day_is_400(world: Any, field: str, value: int) -> None:
    project, spec = world.make_project(), world.make_spec()
    job = {"image": world.image, "spec": spec["uuid"], field: value}
    answer = world.run(project=project["slug"], job=job)
    assert answer.status_code == 400
    assert f"job.{field} is {value}: " in answer.json()["message"]
    assert world.get(f"/v0/projects/{project['slug']}/reports").json() == []
    assert world.run(project=project["slug"], job={**job, field: 23 if field == "iter" else 80_000}).status_code == 201


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start_time", None),
        ("start_time", "2026-03-01"),
        ("start_time", "2026-03-01T10:00:00"),
        ("start_time", 1),
        ("end_time", "2026-13-01T10:00:00Z"),
        ("end_time", "never"),
        ("results", None),
        ("results", "x"),
        ("results", [1]),
        ("results", {}),
        ("hash", "abc"),
        ("hash", "g" * 40),
        ("hash", 5),
        ("branch", ""),
        ("branch", "a b"),
        ("branch", 5),
        ("testbed", ""),
        ("testbed", "a" * 65),
        ("idempotency_key", "x"),
        ("idempotency_key", 1),
        ("settings", {"adapter": "nothing"}),
        ("settings", {"average": "mode"}),
        ("settings", {"fold": "sum"}),
        ("settings", []),
        ("context", {"k": 1}),
        ("context", []),
        ("job", []),
        ("job", {}),
        ("spec_reset", "yes"),
        ("start_point", []),
        ("start_point", {"max_versions": -1}),
        ("project", 7),
        ("start_point", {"reset": "x"}),
        ("start_point", {"hash": "x"}),
        ("start_point", {"max_versions": 2**32}),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_run_out_of_bounds_is_400_and_leaves_nothing(world: Any, field: str, value: object) -> None:
    project = world.make_project()
    answer = world.run(**{"project": project["slug"], field: value})
    assert answer.status_code == 400, answer.text
    assert world.get(f"/v0/projects/{project['slug']}/reports").json() == []
    assert world.get(f"/v0/projects/{project['slug']}/branches").json() == []


def test_nulls_are_as_good_as_absent(world: Any) -> None:
    names = ("branch", "hash", "start_point", "testbed", "spec_reset", "thresholds", "settings", "context", "job")
    answer = world.run(project=world.make_project()["slug"], idempotency_key=None, **dict.fromkeys(names))
    assert answer.status_code == 201, answer.text


def test_bounds_of_a_job_are_inclusive(world: Any) -> None:
    project, spec = world.make_project(), world.make_spec()
    job = {
        "image": f"{world.registry}/app@{world.digest}",
        "spec": spec["uuid"],
        "entrypoint": ["x"] * 64,
        "cmd": [""] * 64,
        "env": {f"k{n}": "v" for n in range(255)},
        "file_paths": ["/x"] * 255,
        "timeout": 2**31 - 1,
        "iter": 0,
        "backdate": "2026-01-01T00:00:00+02:00",
    }
    assert world.run(project=project["slug"], job=job).status_code == 201


def test_cancel_and_retry(world: Any) -> None:
    project, spec = world.make_project(), world.make_spec()
    report = world.run(project=project["slug"], job={"image": world.image, "spec": spec["uuid"]}).json()
    at = f"/v0/projects/{project['slug']}/jobs/{report['job']}"
    assert world.call("POST", f"{at}/cancel").status_code == 401
    assert world.call("POST", f"{at}/cancel", by=world.user.key).status_code == 403
    assert world.call("POST", f"{at}/cancel", by=world.owner.key).status_code in {200, 201, 202}
    seen = world.get(at).json()
    assert seen["status"] == "canceled"
    assert seen["completed"] is not None
    again = world.call("POST", f"{at}/cancel", by=world.owner.key)
    assert again.status_code in {200, 202, 409}
    assert world.get(at).json() == seen
    retried = world.call("POST", f"{at}/retry", by=world.owner.key)
    assert retried.status_code == 201, retried.text
    assert len(world.get(f"/v0/projects/{project['slug']}/jobs").json()) == 2
    assert world.call("POST", f"{at[:-36]}{uuid.uuid4()}/cancel", by=world.owner.key).status_code == 404


def test_a_spec_that_a_job_needs_is_not_deleted(world: Any) -> None:
    project, spec = world.make_project(), world.make_spec()
    world.run(project=project["slug"], job={"image": world.image, "spec": spec["uuid"]})
    assert world.call("DELETE", f"/v0/specs/{spec['uuid']}", by=world.admin.jwt).status_code == 409


def test_a_deleted_report_takes_its_job_with_it(world: Any) -> None:
    project, spec = world.make_project(), world.make_spec()
    report = world.run(project=project["slug"], job={"image": world.image, "spec": spec["uuid"]}).json()
    path = f"/v0/projects/{project['slug']}"
    assert world.call("DELETE", f"{path}/reports/{report['uuid']}", by=world.owner.jwt).status_code == 204
    assert world.get(f"{path}/jobs/{report['job']}").status_code == 404
