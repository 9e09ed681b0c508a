"""Projects, project keys, branches, testbeds and reports."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from metalmark.testing.public_shapes import Branch, NewKeyOfProject, Project, Report, Testbed

HASHES = [f"{number:040x}" for number in range(1, 6)]
BAD_BRANCHES = [
    "",
    "a b",
    ".lead",
    "a..b",
    "a~b",
    "a^b",
    "a:b",
    "a?b",
    "a*b",
    "a[b",
    "a\\b",
    "a/",
    "a.lock",
    "a" * 257,
    "@{",
    1,
]


def test_a_project_is_made_and_changed(world: Any) -> None:
    name, by = world.name("Adder"), world.owner.jwt
    path = f"/v0/organizations/{world.organization['slug']}/projects"
    made = world.post(path, {"name": name, "url": "https://example.com/adder"}, by=by)
    assert made.status_code == 201
    project = Project.model_validate_json(made.content)
    assert (project.slug, project.visibility) == (world.slug_of(name), "public")
    assert project.url == "https://example.com/adder"
    assert project.organization == world.organization["uuid"]
    at = f"/v0/projects/{project.slug}"
    assert world.patch(at, {"url": None}, by=by).json()["url"] is None
    hidden = world.patch(at, {"visibility": "private"}, by=by)
    assert (hidden.status_code, hidden.json()["visibility"]) == (200, "private")
    assert world.get(at).status_code == 404
    assert world.get(f"{at}/allowed/manage", by=by).json() == {"allowed": True}
    assert world.patch(at, {"name": "x", "slug": "Bad"}, by=by).status_code == 400
    assert world.get(at, by=by).json()["name"] == name
    assert world.call("DELETE", f"{at}?hard=true", by=by).status_code == 403
    assert world.call("DELETE", at, by=by).status_code == 204
    assert world.get(at, by=by).status_code == 404
    again = world.post(path, {"name": name}, by=by)
    assert (again.status_code, again.json()["slug"]) == (201, project.slug)


def test_who_may_make_a_project(world: Any) -> None:
    path = f"/v0/organizations/{world.organization['slug']}/projects"
    assert world.post(path, {"name": "x"}).status_code == 401
    assert world.post(path, {"name": "x"}, by=world.user.jwt).status_code in {403, 404}
    assert world.post(path, {"name": "x"}, by=world.project_key(world.make_project())).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": 1},
        {"name": "a" * 65},
        {"name": "x", "slug": "X"},
        {"name": "x", "url": "nothing"},
        {"name": "x", "visibility": "secret"},
        {"name": "x", "visibility": 1},
        {"name": "x", "url": 1},
    ],
    ids=repr,
)
def test_bad_projects_are_400(world: Any, body: dict[str, object]) -> None:
    path = f"/v0/organizations/{world.organization['slug']}/projects"
    assert world.post(path, body, by=world.owner.jwt).status_code == 400


@pytest.mark.parametrize("body", [{"name": None}, {"slug": None}, {"visibility": None}, {"unknown": 1}], ids=repr)
def test_a_projects_patch_takes_null_for_its_url_only(world: Any, body: dict[str, object]) -> None:
    assert world.patch(f"/v0/projects/{world.public_project['slug']}", body, by=world.owner.jwt).status_code == 400


def test_project_keys(world: Any) -> None:
    project = world.make_project()
    path, by = f"/v0/projects/{project['slug']}/keys", world.owner.jwt
    made = world.post(path, {"name": "ci"}, by=world.owner.key)
    assert made.status_code == 201
    key = NewKeyOfProject.model_validate_json(made.content)
    assert key.project == project["uuid"]
    seen = world.get(f"{path}/{key.uuid}", by=by).json()
    assert "key" not in seen
    assert seen["creator"] == world.owner.uuid
    assert world.get(path, by=key.key).status_code == 401
    assert world.get(path, by=world.user.jwt).status_code == 403
    assert world.get(path).status_code == 401
    assert world.patch(f"{path}/{key.uuid}", {"name": "new"}, by=by).json()["name"] == "new"
    assert world.get(f"{path}/{uuid.uuid4()}", by=by).status_code == 404
    assert world.get(f"{path}/no-uuid", by=by).status_code == 400
    for bad in ({}, {"name": ""}, {"name": "x", "ttl": 0}, {"name": "x", "ttl": 1.5}):
        assert world.post(path, bad, by=by).status_code == 400


def test_branches(world: Any) -> None:
    project = world.make_project()
    path, by = f"/v0/projects/{project['slug']}/branches", world.owner.jwt
    assert world.get(path).json() == []
    made = world.post(path, {"name": "feature/fast-path"}, by=by)
    assert made.status_code == 201
    branch = Branch.model_validate_json(made.content)
    assert (branch.name, branch.slug, branch.head.version) == ("feature/fast-path", "feature-fast-path", None)
    assert world.post(path, {"name": "feature/fast-path"}, by=by).status_code == 409
    suffixed = world.post(path, {"name": "feature-fast-path"}, by=by).json()
    assert suffixed["slug"].startswith("feature-fast-path-")
    assert world.get(f"{path}/{branch.slug}", by=by).json() == made.json()
    old = branch.head.uuid
    reset = world.patch(f"{path}/{branch.uuid}", {"start_point": {"reset": True}}, by=by).json()
    assert reset["head"]["uuid"] != old
    shown = world.get(f"{path}/{branch.uuid}?head={old}").json()
    assert shown["head"]["uuid"] == old
    assert shown["head"]["replaced"] is not None
    assert world.get(f"{path}/{branch.uuid}?head={suffixed['head']['uuid']}").status_code == 404
    archived = world.patch(f"{path}/{branch.uuid}", {"archived": True}, by=by).json()
    assert archived["archived"] is not None
    assert [row["uuid"] for row in world.get(path).json()] == [suffixed["uuid"]]
    assert [row["uuid"] for row in world.get(f"{path}?archived=true").json()] == [branch.uuid]
    assert world.call("DELETE", f"{path}/{branch.uuid}", by=by).status_code == 204
    assert world.get(f"{path}/{branch.uuid}").status_code == 404


@pytest.mark.parametrize("name", BAD_BRANCHES, ids=repr)
def test_bad_branch_names_are_400(world: Any, name: object) -> None:
    path = f"/v0/projects/{world.public_project['slug']}/branches"
    assert world.post(path, {"name": name}, by=world.owner.jwt).status_code == 400


def test_testbeds(world: Any) -> None:
    project, spec = world.make_project(), world.make_spec()
    path, by = f"/v0/projects/{project['slug']}/testbeds", world.owner.jwt
    made = world.post(path, {"name": "Rack 7", "spec": spec["slug"]}, by=by)
    assert made.status_code == 201
    testbed = Testbed.model_validate_json(made.content)
    assert testbed.spec is not None
    assert (testbed.slug, testbed.spec.uuid) == ("rack-7", spec["uuid"])
    assert world.post(path, {"name": "Rack 7"}, by=by).status_code == 409
    at = f"{path}/{testbed.uuid}"
    other = world.make_spec()
    assert world.get(f"{at}?spec={other['uuid']}").json()["spec"]["uuid"] == other["uuid"]
    assert world.get(f"{at}?spec={uuid.uuid4()}").status_code == 404
    assert world.patch(at, {"name": "Rack 8"}, by=by).json()["spec"]["uuid"] == spec["uuid"]
    assert world.patch(at, {"spec": None}, by=by).json()["spec"] is None
    assert world.patch(at, {"spec": "there-is-none"}, by=by).status_code == 404
    for bad in ({"name": None}, {"archived": None}, {"archived": "yes"}, {"name": ""}):
        assert world.patch(at, bad, by=by).status_code == 400, bad
    world.patch(at, {"spec": spec["uuid"]}, by=by)
    world.patch(f"/v0/specs/{spec['uuid']}", {"archived": True}, by=world.admin.jwt)
    assert world.get(at).json()["spec"] is None


def test_what_a_project_key_may_change(world: Any) -> None:
    project = world.make_project()
    path, by = f"/v0/projects/{project['slug']}", world.project_key(project)
    branch = world.post(f"{path}/branches", {"name": "b"}, by=by)
    testbed = world.post(f"{path}/testbeds", {"name": "t"}, by=by)
    assert (branch.status_code, testbed.status_code) == (201, 201)
    for noun, made in (("branches", branch.json()), ("testbeds", testbed.json())):
        at = f"{path}/{noun}/{made['uuid']}"
        assert world.patch(at, {"archived": True}, by=by).status_code == 200
        assert world.patch(at, {"name": "other"}, by=by).status_code == 403
        assert world.patch(at, {"slug": "other"}, by=by).status_code == 403
        assert world.call("DELETE", at, by=by).status_code == 403
    assert world.patch(path, {"name": "other"}, by=by).status_code in {401, 403}
    assert world.call("DELETE", path, by=by).status_code in {401, 403}


def test_versions_follow_hashes(world: Any) -> None:
    project = world.make_project()

    def version(**fields: object) -> tuple[int, str | None]:
        report = world.run(project=project["slug"], branch="main", testbed="t", **fields)
        assert report.status_code == 201, report.text
        seen = Report.model_validate_json(report.content).branch.head.version
        assert seen is not None
        return seen.number, seen.hash

    assert version(hash=HASHES[0]) == (0, HASHES[0])
    assert version(hash=HASHES[1]) == (1, HASHES[1])
    assert version(hash=HASHES[0]) == (0, HASHES[0])
    assert version() == (2, None)
    assert version() == (3, None)
    assert version(hash=HASHES[1]) == (1, HASHES[1])


def test_start_points(world: Any) -> None:
    project = world.make_project()

    def head(branch: str, **fields: object) -> dict[str, Any]:
        answer = world.run(project=project["slug"], branch=branch, testbed="t", **fields)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()["branch"]["head"]
        return found

    for number in range(3):
        head("main", hash=HASHES[number])
    first = head("topic", start_point={"branch": "main", "hash": HASHES[1]})
    assert first["start_point"]["version"] == {"number": 1, "hash": HASHES[1]}
    assert first["version"] == {"number": 2, "hash": None}
    same = head("topic", start_point={"branch": "main", "hash": HASHES[1]})
    assert same["uuid"] == first["uuid"]
    moved = head("topic", start_point={"branch": "main"})
    assert moved["uuid"] != first["uuid"]
    assert moved["start_point"]["version"] == {"number": 2, "hash": HASHES[2]}
    assert moved["version"]["number"] == 3
    kept = head("topic")
    assert kept["uuid"] == moved["uuid"]
    unknown = head("topic", start_point={"branch": "there-is-none"})
    assert unknown["uuid"] == moved["uuid"]
    fallen = head("other", start_point={"branch": "main", "hash": HASHES[4]})
    assert fallen["start_point"]["version"]["number"] == 2
    emptied = head("topic", start_point={"reset": True})
    assert emptied["start_point"] is None
    assert emptied["version"]["number"] == 0
    none = head("fresh", start_point={"branch": "main", "max_versions": 0})
    assert none["version"]["number"] == 0


def test_reports(world: Any) -> None:
    project = world.make_project()
    path, by = f"/v0/projects/{project['slug']}/reports", world.owner.jwt
    times = {"start_time": "2026-03-01T11:00:00+01:00", "end_time": "2026-03-01T10:00:42Z", "results": []}
    made = world.post(path, {"branch": "main", "testbed": "ci-box", "hash": HASHES[0], **times}, by=by)
    assert made.status_code == 201, made.text
    report = Report.model_validate_json(made.content)
    assert (report.start_time, report.end_time) == ("2026-03-01T10:00:00Z", "2026-03-01T10:00:42Z")
    assert report.user is not None
    assert report.user.uuid == world.owner.uuid
    assert report.counts.model_dump() == {"results": [], "alerts": {"total": 0, "active": 0}}
    assert report.job is None
    seen = world.get(f"{path}/{report.uuid}").json()
    assert seen["branch"] == made.json()["branch"]
    rows = world.get(path).json()
    assert [row["uuid"] for row in rows] == [report.uuid]
    assert rows[0]["counts"] == {"results": [], "alerts": {"total": 0, "active": 0}}
    assert "results" not in rows[0]
    assert "results" in world.get(f"{path}?expand=true").json()[0]
    assert world.get(f"{path}?branch=main&testbed=ci-box").json() != []
    assert world.get(f"{path}?branch=nothing").json() == []
    assert world.call("DELETE", f"/v0/projects/{project['slug']}/branches/main", by=by).status_code == 409
    assert world.call("DELETE", f"{path}/{report.uuid}", by=world.project_key(project)).status_code == 403
    assert world.call("DELETE", f"{path}/{report.uuid}", by=by).status_code == 204
    assert world.get(f"{path}/{report.uuid}").status_code == 404
    assert world.call("DELETE", f"/v0/projects/{project['slug']}/branches/main", by=by).status_code == 204
