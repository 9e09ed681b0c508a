"""The public CLI's own way through the server, as its stand-in does it."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from metalmark.testing import public_shapes as shapes
from metalmark.testing.public_cli import PublicCli, PublicCliFailure

SPEC = {"os": "linux", "architecture": "x86_64", "sandbox": "firecracker", "cpu": 1, "memory": 2**30, "disk": 2**30}


def cli_of(world: Any, credential: str | None) -> PublicCli:
    return PublicCli(host=world.url, credential=credential, sleep=lambda _seconds: None, attempts=2)


def test_it_asks_for_the_version_first_and_is_content(world: Any) -> None:
    cli = cli_of(world, None)
    cli.invoke("server config console")
    assert [request.path for request in cli.sent] == ["/v0/server/version", "/v0/server/config/console"]
    assert cli.warnings == []


def test_an_administrator_works_through_every_group(world: Any) -> None:
    admin = cli_of(world, world.admin.key)
    runner = admin.expect(shapes.RunnerKey, "runner create", body={"name": world.name("Rack")})
    spec = admin.expect(shapes.Spec, "spec create", body={"name": world.name("VM"), **SPEC})
    admin.expect(shapes.Spec, "runner spec add", runner=runner.uuid, body={"spec": spec.slug})
    assert admin.expect(shapes.Runner, "runner view", runner=runner.uuid).specs == [spec.uuid]
    admin.expect(shapes.Specs, "runner spec list", runner=runner.uuid)
    assert admin.expect(shapes.RunnerKey, "runner key", runner=runner.uuid).key != runner.key
    admin.expect(shapes.Runner, "runner update", runner=runner.uuid, body={"name": "Other", "archived": True})
    assert admin.expect(shapes.Runners, "runner list", query={"archived": "true", "per_page": 255, "sort": "created"})
    assert admin.invoke("runner spec remove", runner=runner.uuid, spec=spec.slug) is None
    admin.expect(shapes.Spec, "spec update", spec=spec.uuid, body={"archived": True})
    admin.expect(shapes.Spec, "spec view", spec=spec.slug)
    admin.expect(shapes.Specs, "spec list", query={"search": "VM"})
    assert admin.invoke("spec delete", spec=spec.uuid) is None
    admin.expect(shapes.Users, "user list", query={"per_page": 255})
    admin.invoke("server config view")
    admin.invoke("server stats")
    admin.invoke("server spec")


def test_a_user_works_through_every_group(world: Any) -> None:
    person = world.make_user()
    session, plain = cli_of(world, person.jwt), cli_of(world, person.key)
    me = plain.expect(shapes.User, "user view", user=person.slug)
    plain.expect(shapes.User, "user update", user=me.uuid, body={"name": "New Name"})
    key = session.expect(shapes.NewKeyOfUser, "user key create", user=person.slug, body={"name": "ci", "ttl": 60})
    session.expect(shapes.KeysOfUser, "user key list", user=person.slug)
    session.expect(shapes.KeyOfUser, "user key view", user=person.slug, key=key.uuid)
    session.expect(shapes.KeyOfUser, "user key update", user=person.slug, key=key.uuid, body={"name": "x"})
    assert session.invoke("user key revoke", user=person.slug, key=key.uuid) is None
    session.expect(shapes.Tokens, "token list", user=person.slug)
    with pytest.raises(PublicCliFailure) as refused:
        session.invoke("token create", user=person.slug, body={"name": "x"})
    assert refused.value.status == 403
    organization = plain.expect(shapes.Organization, "organization create", body={"name": world.name("Org")})
    at = {"organization": organization.slug}
    plain.expect(shapes.Organizations, "organization list")
    plain.expect(shapes.Organization, "organization view", **at)
    plain.expect(shapes.Organization, "organization update", body={"name": world.name("Org")}, **at)
    assert plain.expect(shapes.Allowed, "organization allowed", permission="manage", **at).allowed
    plain.expect(shapes.Members, "member list", **at)
    plain.expect(shapes.Member, "member view", user=person.slug, **at)
    project = plain.expect(shapes.Project, "project create", body={"name": world.name("P")}, **at)
    plain.expect(shapes.Projects, "project list organization", **at)
    plain.expect(shapes.Projects, "project list", query={"search": project.slug})
    in_project = {"project": project.slug}
    plain.expect(shapes.Project, "project view", **in_project)
    plain.expect(shapes.Project, "project update", body={"url": "https://example.org/"}, **in_project)
    assert plain.expect(shapes.Allowed, "project allowed", permission="delete", **in_project).allowed
    secret = plain.expect(shapes.NewKeyOfProject, "project key create", body={"name": "k"}, **in_project)
    plain.expect(shapes.KeysOfProject, "project key list", **in_project)
    plain.expect(shapes.KeyOfProject, "project key view", key=secret.uuid, **in_project)
    plain.expect(shapes.KeyOfProject, "project key update", key=secret.uuid, body={"name": "z"}, **in_project)
    branch = plain.expect(shapes.Branch, "branch create", body={"name": "topic/one"}, **in_project)
    plain.expect(shapes.Branches, "branch list", **in_project)
    plain.expect(shapes.Branch, "branch view", branch=branch.slug, **in_project)
    plain.expect(shapes.Branch, "branch update", branch=branch.uuid, body={"archived": True}, **in_project)
    testbed = plain.expect(shapes.Testbed, "testbed create", body={"name": "bed"}, **in_project)
    plain.expect(shapes.Testbeds, "testbed list", **in_project)
    plain.expect(shapes.Testbed, "testbed view", testbed=testbed.slug, **in_project)
    plain.expect(shapes.Testbed, "testbed update", testbed=testbed.uuid, body={"name": "bed2"}, **in_project)
    times = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:01Z", "results": []}
    report = plain.expect(
        shapes.Report, "report create", body={"branch": "main", "testbed": "bed2", **times}, **in_project
    )
    plain.expect(shapes.Reports, "report list", **in_project)
    plain.expect(shapes.Report, "report view", report=report.uuid, **in_project)
    plain.expect(shapes.Jobs, "job list", **in_project)
    for command, noun in (
        ("report delete", {"report": report.uuid}),
        ("branch delete", {"branch": branch.uuid}),
        ("testbed delete", {"testbed": testbed.uuid}),
        ("project key revoke", {"key": secret.uuid}),
        ("project delete", {}),
    ):
        assert plain.invoke(command, **in_project, **noun) is None
    assert plain.invoke("organization delete", **at) is None


def test_a_detached_remote_run(world: Any) -> None:
    project, spec = world.make_project(), world.make_spec()
    cli = cli_of(world, world.project_key(project))
    done = cli.run_remote(
        image=world.image, project=project["slug"], job={"spec": spec["slug"], "timeout": 60}, detach=True
    )
    assert done.submitted.job is not None
    seen = cli.expect(shapes.Job, "job view", project=project["slug"], job=done.submitted.job)
    assert seen.status == "pending"


def test_a_run_that_is_canceled_while_it_polls(world: Any) -> None:
    project, spec = world.make_project(), world.make_spec()
    cli = cli_of(world, world.owner.key)
    polls: list[float] = []

    def cancel_at_the_second(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 2:
            rows = world.get(f"/v0/projects/{project['slug']}/jobs").json()
            path = f"/v0/projects/{project['slug']}/jobs/{rows[0]['uuid']}/cancel"
            assert world.call("POST", path, by=world.owner.key).is_success

    cli.sleep = cancel_at_the_second
    done = cli.run_remote(image=world.image, project=project["slug"], job={"spec": spec["slug"], "timeout": 60})
    assert done.statuses == ("pending", "canceled")
    assert polls == [5, 5]


@pytest.mark.parametrize(
    ("command", "values", "status"),
    [
        ("project view", {"project": "there-is-none"}, 404),
        ("project view", {"project": "Not A Slug"}, 400),
        ("runner create", {"body": {"name": ""}}, 400),
        ("runner view", {"runner": "there-is-none"}, 404),
        ("run", {"body": {"results": []}}, 400),
    ],
)
def test_every_refusal_has_a_body_that_it_can_decode(
    world: Any, command: str, values: dict[str, Any], status: int
) -> None:
    cli = cli_of(world, world.admin.key)
    with pytest.raises(PublicCliFailure) as refused:
        cli.invoke(command, **values)
    assert refused.value.status == status
    assert refused.value.error is not None
    assert len(cli.sent) == 2


def test_a_wrong_credential_is_refused_once(world: Any) -> None:
    cli = cli_of(world, "bencher_user_" + "a" * 30)
    with pytest.raises(PublicCliFailure) as refused:
        cli.invoke("organization list")
    assert refused.value.status == 401
    assert len(cli.sent) == 2


def test_the_stand_in_tries_again_with_doubling_waits() -> None:
    """What the tests above rely on: network errors and 5xx are retried, 4xx and answers of another shape are not."""
    answers = [None, b"503 Busy", b'200 OK\r\n\r\n{"version":"0.6.12"}', b"500 Bad", b'200 OK\r\n\r\n{"url":"nowhere"}']
    waits: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(20)
                    if answer is not None:
                        connection.recv(65536)
                        head, _, body = answer.partition(b"\r\n\r\n")
                        length = f"\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                        connection.sendall(b"HTTP/1.1 " + head + length + body)

        thread = threading.Thread(target=serve)
        thread.start()
        host = f"http://127.0.0.1:{listener.getsockname()[1]}"
        cli = PublicCli(host=host, sleep=waits.append)
        with pytest.raises(PublicCliFailure, match="does not decode"):
            cli.invoke("server config console")
        thread.join()
    assert waits == [1, 2, 1]
    assert [request.status for request in cli.sent] == [0, 503, 200, 500, 200]
