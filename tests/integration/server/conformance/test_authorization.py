"""Who may do what: every route of the OpenAPI document by every kind of caller, against a table that people review.

``METALMARK_WRITE_TABLES=1`` writes the table anew; the difference is what there is to review.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).with_name("authorization.txt")
LEFT_OUT = re.compile(
    r"/channel$|^/metrics$|/v0/server/backup$|^/healthz$|^/readyz$|/v0/auth/|/v0/updates/|/jobs/{\w+}/output$|/sessions$"
)
"""What has a credential of its own kind or none, makes something large, or ends the sign-ins that the table's callers
use; other tests have these."""

CALLERS = (
    "nobody",
    "malformed",
    "runner key",
    "stranger",
    "foreign project key",
    "project key",
    "leader",
    "administrator",
)


class Place:
    """One set of things to ask for, made anew whenever something of it was deleted."""

    def __init__(self, world: Any, visibility: str) -> None:
        self.world = world
        self.subject = world.make_user()
        self.organization = world._made("/v0/organizations", {"name": world.name("Table")}, by=world.owner.jwt)
        self.project = world.make_project(organization=self.organization["slug"], visibility=visibility)
        self.spec, self.runner = world.make_spec(), world.make_runner()
        world.post(f"/v0/runners/{self.runner['uuid']}/specs", {"spec": self.spec["uuid"]}, by=world.admin.jwt)
        self.report = world.run(
            project=self.project["slug"], job={"image": world.image, "spec": self.spec["uuid"]}
        ).json()
        self.key = world.make_project_key(self.project)
        self.own_key = world.project_key(self.project)
        self.user_key = world._made(
            f"/v0/users/{world.owner.slug}/keys", {"name": world.name("key")}, by=world.owner.jwt
        )

    def path(self, template: str) -> str:
        of_user = template.startswith("/v0/users/")
        values = {
            # The leader of the organization is the user that is asked about; the stranger is somebody else.
            "user": self.world.owner.slug,
            "organization": self.organization["slug"],
            "project": self.project["slug"],
            "spec": self.spec["slug"],
            "runner": self.runner["uuid"],
            "report": self.report["uuid"],
            "job": self.report["job"],
            "branch": self.report["branch"]["slug"],
            "testbed": self.report["testbed"]["slug"],
            "key": self.user_key["uuid"] if of_user else self.key["uuid"],
            "permission": "view",
        }
        return re.sub(r"{(\w+)}", lambda match: str(values.get(match[1], uuid.UUID(int=0))), template)

    def body(self, template: str) -> dict[str, Any]:
        """A good body of a POST, so that whoever may do it does it; names are new each time."""
        name = self.world.slug_of(self.world.name("table"))
        times = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:00Z", "results": []}
        hardware = {"os": "linux", "architecture": "x86_64", "cpu": 1, "memory": 1, "disk": 1}
        bodies: dict[str, dict[str, Any]] = {
            "/v0/organizations/{organization}/members": {"email": f"{name}@example.com", "role": "leader"},
            "/v0/projects/{project}/reports": {"branch": name, "testbed": name, **times},
            "/v0/run": {"project": self.project["slug"], **times},
            "/v0/runners/{runner}/specs": {"spec": self.spec["uuid"]},
            "/v0/specs": {"name": name, **hardware},
        }
        return bodies.get(template, {"name": name})

    def credential(self, caller: str, foreign: str) -> str | None:
        world = self.world
        credentials: dict[str, str | None] = {
            "nobody": None,
            "malformed": "malformed",
            "runner key": world.runner_key,
            "stranger": world.user.jwt,
            "foreign project key": foreign,
            "project key": self.own_key,
            "leader": world.owner.jwt,
            "administrator": world.admin.jwt,
        }
        return credentials[caller]


def statuses(
    world: Any, places: dict[str, Place], foreign: str, method: str, template: str, visibility: str
) -> list[int]:
    found = []
    for caller in CALLERS:
        place = places[visibility]
        body = place.body(template) if method == "POST" else {} if method in {"PUT", "PATCH"} else None
        by = place.credential(caller, foreign)
        status = world.call(method, place.path(template), json=body, by=by).status_code
        if method == "DELETE" and status < 300:
            places[visibility] = Place(world, visibility)
        found.append(status)
    return found


def table(world: Any) -> list[str]:
    document = world.get("/v0/server/spec").json()
    foreign = world.project_key(world.make_project())
    rows = []
    places = {visibility: Place(world, visibility) for visibility in ("public", "private")}
    for template, item in sorted(document["paths"].items()):
        if LEFT_OUT.search(template):
            continue
        for method in ("get", "post", "put", "patch", "delete"):
            if method not in item:
                continue
            for visibility in ("public", "private") if "{project}" in template else ("public",):
                row = statuses(world, places, foreign, method.upper(), template, visibility)
                shown = f"{method.upper():6} {template}" + (" (private)" if visibility == "private" else "")
                rows.append(f"{shown:<74} " + " ".join(str(status) for status in row))
    return rows


@pytest.mark.timeout(300)
def test_the_table_of_routes_and_callers(world: Any) -> None:
    seen = table(world)
    heading = [f"# Statuses, in this order: {', '.join(CALLERS)}"]
    if os.environ.get("METALMARK_WRITE_TABLES"):
        TABLE.write_text("\n".join([*heading, *seen, ""]), encoding="utf-8")
    wanted = TABLE.read_text(encoding="utf-8").splitlines()[1:]
    assert seen == wanted


def test_the_table_has_no_surprise() -> None:
    """What holds for every row, whatever it says in detail."""
    for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]:
        place, *row = re.split(r" {1,}(?=\d{3}\b)", line)
        by = dict(zip(CALLERS, (int(status) for status in row), strict=True))
        assert set(by.values()) <= {200, 201, 202, 204, 400, 401, 403, 404, 409}, line
        assert by["malformed"] == 401 or by["nobody"] < 300, line
        assert by["runner key"] in {401, by["malformed"]}, line
        if "(private)" in place:
            hidden = {by["nobody"], by["stranger"], by["foreign project key"]}
            assert hidden <= {401, 403, 404}, line
            assert by["stranger"] == 404, line
        if "/v0/runners" in place or "/v0/specs" in place:
            assert by["leader"] == 403, line
            assert by["project key"] == 401, line
        if by["nobody"] >= 300:
            assert by["nobody"] in {401, 404}, line
        assert 400 not in by.values(), line
