"""Who may sign up, invitations, locked accounts, what mails do, and what goes with a project."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.server.mailbox import Mailbox, running_mailbox
from tests.integration.store.job_floor import Floor

from metalmark.model import ApiKey, Email, JobStatus, KeyKind, ResourceName, UserName
from metalmark.server import ServerContext, reset_key
from metalmark.store import (
    ActRecord,
    Connection,
    Holder,
    JobRecord,
    KeyRecord,
    Page,
    create_key,
    create_organization,
    create_user,
    find_job,
    list_acts,
)
from metalmark.testing.running_server import RunningServer, running_server

ADA, BOB = "ada@example.com", "bob@example.com"


@contextmanager
def serving(
    folder: Path, database: str | None = None, **settings: dict[str, Any]
) -> Iterator[tuple[RunningServer, Mailbox]]:
    with running_mailbox() as mailbox:
        given = {"smtp": mailbox.settings, **settings}
        with running_server(folder / "server", database=database, settings=given) as server:
            yield server, mailbox


def call(server: RunningServer, method: str, path: str, body: object = None, *, by: str | None = "") -> httpx.Response:
    with server.client(by) as client:
        return client.request(method, path, json=body)


def sign_up(server: RunningServer, email: str, *, name: str = "Ada", **more: object) -> httpx.Response:
    return call(server, "POST", "/v0/auth/signup", {"name": name, "email": email, "i_agree": True, **more}, by=None)


def confirm(server: RunningServer, mailbox: Mailbox, email: str) -> str:
    answer = call(server, "POST", "/v0/auth/confirm", {"token": mailbox.token(email)}, by=None)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["token"]
    return token


def sign_in(server: RunningServer, mailbox: Mailbox, email: str) -> str:
    assert call(server, "POST", "/v0/auth/login", {"email": email}, by=None).status_code == 202
    return confirm(server, mailbox, email)


def invite(server: RunningServer, mailbox: Mailbox, email: str, role: str = "member") -> str:
    body = {"email": email, "role": role}
    assert call(server, "POST", "/v0/organizations/acme/members", body).status_code == 202
    return mailbox.token(email, "Invite")


@pytest.fixture
def open_server(tmp_path: Path) -> Iterator[tuple[RunningServer, Mailbox]]:
    with serving(tmp_path, auth={"signup": "open"}) as both:
        yield both


@pytest.fixture
def inviting(tmp_path: Path, database_url: str) -> Iterator[tuple[RunningServer, Mailbox]]:
    """A server with the default policy, once on each engine."""
    with serving(tmp_path, database_url) as both:
        assert call(both[0], "POST", "/v0/organizations", {"name": "Acme"}).status_code == 201
        yield both


def test_an_open_server_takes_whoever_has_the_mail(tmp_path: Path, database_url: str) -> None:
    with serving(tmp_path, database_url, auth={"signup": "open"}) as (server, mailbox):
        assert call(server, "POST", "/v0/organizations", {"name": "Acme"}).status_code == 201
        invitation = invite(server, mailbox, BOB)
        assert sign_up(server, ADA).status_code == 202
        # Nobody is in before the mail was read, and whoever had no invitation sees no organization of others.
        assert call(server, "GET", "/v0/users/ada", by=mailbox.token(ADA)).status_code == 401
        jwt = confirm(server, mailbox, ADA)
        assert call(server, "GET", "/v0/users/ada", by=jwt).json()["email"] == ADA
        assert call(server, "GET", "/v0/organizations/acme", by=jwt).status_code == 404
        assert sign_up(server, ADA).status_code == 409
        assert sign_up(server, BOB, name="Bob", invite=invitation).status_code == 202
        jwt = confirm(server, mailbox, BOB)
        assert call(server, "GET", "/v0/organizations/acme", by=jwt).status_code == 200
        assert sign_up(server, "eve@example.com", i_agree=False).status_code == 403


def test_a_closed_server_takes_nobody(tmp_path: Path, database_url: str) -> None:
    with serving(tmp_path, database_url, auth={"signup": "closed"}) as (server, mailbox):
        assert call(server, "POST", "/v0/organizations", {"name": "Acme"}).status_code == 201
        token = invite(server, mailbox, ADA)
        assert sign_up(server, ADA).status_code == 403
        assert sign_up(server, ADA, invite=token).status_code == 403
        assert [mail["Subject"] for mail in mailbox.mails] == ["Invitation to Acme"]


def test_by_invitation_whoever_was_invited_joins_and_nobody_else(inviting: tuple[RunningServer, Mailbox]) -> None:
    server, mailbox = inviting
    token = invite(server, mailbox, ADA)
    assert sign_up(server, ADA).status_code == 403
    assert sign_up(server, BOB, invite=token).status_code == 401
    assert sign_up(server, ADA, invite=token[:-4] + "AAAA").status_code == 401
    assert sign_up(server, ADA, invite=token).status_code == 202
    jwt = confirm(server, mailbox, ADA)
    assert [found["slug"] for found in call(server, "GET", "/v0/organizations", by=jwt).json()] == ["acme"]
    member = call(server, "GET", "/v0/organizations/acme/members/ada", by=jwt).json()
    assert (member["role"], member["email"]) == ("member", ADA)
    # A member sees, and changes nothing.
    assert call(server, "PATCH", "/v0/organizations/acme", {"name": "x"}, by=jwt).status_code == 403
    assert (
        call(server, "POST", "/v0/organizations/acme/members", {"email": BOB, "role": "member"}, by=jwt).status_code
        == 403
    )
    assert call(server, "POST", "/v0/auth/accept", {"invite": token}, by=jwt).status_code == 401
    assert call(server, "DELETE", "/v0/organizations/acme/members/ada", by=jwt).status_code == 204
    assert call(server, "GET", "/v0/organizations/acme", by=jwt).status_code == 404


def test_signing_in_with_an_invitation_joins(inviting: tuple[RunningServer, Mailbox]) -> None:
    server, mailbox = inviting
    assert sign_up(server, ADA, invite=invite(server, mailbox, ADA)).status_code == 202
    token = invite(server, mailbox, ADA, role="leader")
    assert "/auth/login?invite=" in mailbox.mails[-1].get_content()
    wrong = call(server, "POST", "/v0/auth/login", {"email": BOB, "invite": token}, by=None)
    assert wrong.status_code == 404
    assert call(server, "POST", "/v0/auth/login", {"email": ADA, "invite": token}, by=None).status_code == 202
    jwt = confirm(server, mailbox, ADA)
    assert call(server, "GET", "/v0/organizations/acme/members/ada", by=jwt).json()["role"] == "leader"
    again = call(server, "POST", "/v0/auth/login", {"email": ADA, "invite": token}, by=None)
    assert again.status_code == 401


def test_an_invitation_of_a_deleted_organization_is_no_longer_good(inviting: tuple[RunningServer, Mailbox]) -> None:
    server, mailbox = inviting
    token = invite(server, mailbox, ADA)
    assert call(server, "DELETE", "/v0/organizations/acme").status_code == 204
    assert sign_up(server, ADA, invite=token).status_code == 401
    assert call(server, "GET", "/v0/users").headers["x-total-count"] == "1"


def test_an_organization_without_members_is_claimed_once(open_server: tuple[RunningServer, Mailbox]) -> None:
    server, mailbox = open_server

    async def make(context: ServerContext) -> str:
        async def work(connection: Connection) -> str:
            name = ResourceName("Unclaimed")
            return str((await create_organization(connection, name=name, now=context.clock.now())).id)

        return await context.store.write(work)

    claimed = server.call(make)
    assert sign_up(server, ADA, claim=claimed).status_code == 202
    assert sign_up(server, BOB, name="Bob", claim=claimed).status_code == 401
    jwt = confirm(server, mailbox, ADA)
    assert [found["uuid"] for found in call(server, "GET", "/v0/organizations", by=jwt).json()] == [claimed]
    other = server.call(make)
    assert call(server, "POST", f"/v0/organizations/{other}/claim", {}, by=jwt).json()["claimed"] is not None
    assert call(server, "POST", f"/v0/organizations/{other}/claim", {}, by=jwt).status_code == 401


def test_all_sign_ins_of_a_user_end_at_once_and_nothing_else(inviting: tuple[RunningServer, Mailbox]) -> None:
    server, mailbox = inviting
    assert sign_up(server, ADA, invite=invite(server, mailbox, ADA)).status_code == 202
    jwts = [sign_in(server, mailbox, ADA) for _ in range(2)]
    key = call(server, "POST", "/v0/users/ada/keys", {"name": "ci"}, by=jwts[0]).json()["key"]
    assert call(server, "POST", "/v0/auth/login", {"email": ADA}, by=None).status_code == 202
    mailed = mailbox.token(ADA)
    assert call(server, "DELETE", "/v0/users/ada/sessions", by=jwts[1]).status_code == 204
    for jwt in jwts:
        refused = call(server, "GET", "/v0/organizations", by=jwt)
        assert (refused.status_code, "ended" in refused.json()["message"]) == (401, True)
    assert call(server, "POST", "/v0/auth/confirm", {"token": mailed}, by=None).status_code == 401, "mailed before"
    assert call(server, "GET", "/v0/organizations", by=key).status_code == 200
    again = sign_in(server, mailbox, ADA)
    assert call(server, "GET", "/v0/organizations", by=again).status_code == 200
    # By an administrator, and by a key of the user's own; by nobody else.
    assert call(server, "DELETE", "/v0/users/ada/sessions").status_code == 204
    assert call(server, "GET", "/v0/organizations", by=again).status_code == 401
    again = sign_in(server, mailbox, ADA)
    administrator = next(user["slug"] for user in call(server, "GET", "/v0/users").json() if user["slug"] != "ada")
    assert call(server, "DELETE", f"/v0/users/{administrator}/sessions", by=again).status_code == 403
    assert call(server, "DELETE", "/v0/users/nobody/sessions").status_code == 404
    assert call(server, "DELETE", "/v0/users/ada/sessions", by=None).status_code == 401
    assert call(server, "DELETE", "/v0/users/ada/sessions", by=key).status_code == 204
    assert call(server, "GET", "/v0/organizations", by=again).status_code == 401


def test_a_key_that_the_operator_resets_ends_all_sign_ins(inviting: tuple[RunningServer, Mailbox]) -> None:
    server, mailbox = inviting
    assert sign_up(server, ADA, invite=invite(server, mailbox, ADA)).status_code == 202
    jwt = sign_in(server, mailbox, ADA)

    async def reset(context: ServerContext) -> str:
        _, key, _ = await reset_key(context.store, context.clock, "ada")
        return key.text

    key = server.call(reset)
    assert call(server, "GET", "/v0/organizations", by=jwt).status_code == 401
    assert call(server, "GET", "/v0/organizations", by=key).status_code == 200


def test_who_is_locked_is_out_whatever_the_credential(open_server: tuple[RunningServer, Mailbox]) -> None:
    server, mailbox = open_server
    assert sign_up(server, ADA).status_code == 202
    confirmation = mailbox.token(ADA)
    jwt = confirm(server, mailbox, ADA)
    key = call(server, "POST", "/v0/users/ada/keys", {"name": "ci"}, by=jwt).json()["key"]
    assert call(server, "PATCH", "/v0/users/ada", {"locked": True}).json()["locked"] is True
    assert call(server, "GET", "/v0/organizations", by=jwt).status_code == 403
    assert call(server, "GET", "/v0/organizations", by=key).status_code == 401
    assert call(server, "POST", "/v0/auth/login", {"email": ADA}, by=None).status_code == 403
    assert call(server, "POST", "/v0/auth/confirm", {"token": confirmation}, by=None).status_code == 403
    assert call(server, "PATCH", "/v0/users/ada", {"locked": False}).status_code == 200
    assert call(server, "GET", "/v0/organizations", by=jwt).status_code == 200


def test_who_takes_over_an_address_takes_over_no_session(open_server: tuple[RunningServer, Mailbox]) -> None:
    server, mailbox = open_server
    assert sign_up(server, ADA).status_code == 202
    first = confirm(server, mailbox, ADA)
    assert call(server, "PATCH", "/v0/users/ada", {"email": "old@example.com"}, by=first).status_code == 200
    assert sign_up(server, ADA, name="Eve").status_code == 202
    second = confirm(server, mailbox, ADA)
    assert call(server, "GET", "/v0/users/ada", by=first).json()["email"] == "old@example.com"
    assert call(server, "GET", "/v0/users/ada", by=second).status_code == 403
    assert call(server, "GET", "/v0/users/eve", by=second).json()["email"] == ADA


def test_a_key_changes_no_address(open_server: tuple[RunningServer, Mailbox]) -> None:
    server, mailbox = open_server
    assert sign_up(server, ADA).status_code == 202
    jwt = confirm(server, mailbox, ADA)
    key = call(server, "POST", "/v0/users/ada/keys", {"name": "ci"}, by=jwt).json()["key"]
    assert call(server, "PATCH", "/v0/users/ada", {"email": BOB}, by=key).status_code == 403
    assert call(server, "PATCH", "/v0/users/ada", {"name": "Ada L", "email": ADA}, by=key).json()["name"] == "Ada L"
    assert call(server, "PATCH", "/v0/users/ada", {"email": BOB}, by=jwt).json()["email"] == BOB
    # Who administers the server can make another administrator anyway.
    assert call(server, "PATCH", "/v0/users/ada", {"email": ADA}).json()["email"] == ADA


def test_who_was_taken_out_gets_in_by_nothing_that_is_left(inviting: tuple[RunningServer, Mailbox]) -> None:
    server, mailbox = inviting
    assert sign_up(server, ADA, invite=invite(server, mailbox, ADA, role="leader")).status_code == 202
    jwt = confirm(server, mailbox, ADA)
    private = {"name": "Secret", "visibility": "private"}
    assert call(server, "POST", "/v0/organizations/acme/projects", private, by=jwt).status_code == 201
    spare = invite(server, mailbox, ADA, role="leader")
    assert call(server, "PATCH", "/v0/organizations/acme/members/ada", {"role": "member"}).status_code == 200
    assert call(server, "POST", "/v0/auth/accept", {"invite": spare}, by=jwt).status_code == 401
    assert call(server, "GET", "/v0/projects/secret", by=jwt).status_code == 200
    spare = invite(server, mailbox, ADA)
    other = invite(server, mailbox, BOB)
    assert call(server, "DELETE", "/v0/organizations/acme/members/ada").status_code == 204
    assert call(server, "POST", "/v0/auth/accept", {"invite": spare}, by=jwt).status_code == 401
    assert call(server, "GET", "/v0/projects/secret", by=jwt).status_code == 404
    assert call(server, "POST", "/v0/projects/secret/keys", {"name": "left"}, by=jwt).status_code == 404
    assert sign_up(server, BOB, name="Bob", invite=other).status_code == 202


def test_an_older_token_works_until_it_is_revoked(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, _):

        async def make(context: ServerContext) -> tuple[str, str]:
            from metalmark.server.signer import Audience

            async def work(connection: Connection) -> tuple[KeyRecord, str]:
                now = context.clock.now()
                user = await create_user(connection, name=UserName("Ada"), email=Email(ADA), now=now)
                text = context.signer.sign(Audience.TOKEN, str(user.id), ttl_s=3600).text
                stored = ApiKey(KeyKind.USER, text)
                assert stored.digest == hashlib.sha256(text.encode()).hexdigest()
                record = await create_key(
                    connection,
                    Holder.TOKEN,
                    owner_id=user.id,
                    key=stored,
                    name=ResourceName("old"),
                    now=now,
                    expires=now + timedelta(hours=1),
                )
                return record, text

            record, text = await context.store.write(work)
            return str(record.id), text

        identifier, token = server.call(make)
        shown = call(server, "GET", f"/v0/users/ada/tokens/{identifier}", by=token)
        assert shown.status_code == 200
        assert token not in shown.text
        renamed = call(server, "PATCH", f"/v0/users/ada/tokens/{identifier}", {"name": "new"}, by=token)
        assert renamed.json()["name"] == "new"
        assert [row["name"] for row in call(server, "GET", "/v0/users/ada/tokens", by=token).json()] == ["new"]
        assert call(server, "DELETE", f"/v0/users/ada/tokens/{identifier}", by=token).status_code == 204
        assert call(server, "GET", "/v0/organizations", by=token).status_code == 401
        assert call(server, "GET", "/v0/users/ada/tokens?revoked=true").headers["x-total-count"] == "1"


def test_attempts_and_mails_are_bounded(tmp_path: Path) -> None:
    limits = {"sign_in_attempts": 6, "mails": 2}
    with serving(tmp_path, auth={"signup": "open"}, limits=limits) as (server, mailbox):
        seen = [sign_up(server, ADA).status_code]
        seen += [call(server, "POST", "/v0/auth/login", {"email": ADA}, by=None).status_code for _ in range(2)]
        assert seen == [202, 202, 429]
        assert len(mailbox.mails) == 2
        seen = [call(server, "POST", "/v0/auth/login", {"email": BOB}, by=None).status_code for _ in range(4)]
        assert seen == [404, 404, 404, 429]
        answer = call(server, "GET", "/v0/organizations", by="bencher_user_" + "a" * 30)
        assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (429, True)


def test_a_mail_that_cannot_be_sent_is_told_and_can_be_asked_for_again(
    open_server: tuple[RunningServer, Mailbox],
) -> None:
    server, mailbox = open_server
    mailbox.refused = True
    refused = sign_up(server, ADA)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    mailbox.refused = False
    assert sign_up(server, ADA).status_code == 409
    sign_in(server, mailbox, ADA)


def test_nothing_is_sent_in_the_clear_when_encryption_was_asked_for(tmp_path: Path) -> None:
    with running_mailbox() as mailbox:
        smtp = {**mailbox.settings, "security": "starttls"}
        settings = {"smtp": smtp, "auth": {"signup": "open"}}
        with running_server(tmp_path / "server", settings=settings) as server:
            assert sign_up(server, ADA).status_code == 503
        assert mailbox.mails == []
        assert not [line for line in mailbox.log if line.upper().startswith(("MAIL", "AUTH", "DATA"))]


def acts(server: RunningServer) -> list[ActRecord]:
    async def read(context: ServerContext) -> list[ActRecord]:
        async with context.store.read() as connection:
            return list((await list_acts(connection, page=Page(limit=100)))[0])

    return server.call(read)


def test_acts_of_administration_are_in_the_audit_log(open_server: tuple[RunningServer, Mailbox]) -> None:
    server, mailbox = open_server
    assert sign_up(server, ADA).status_code == 202
    jwt = confirm(server, mailbox, ADA)
    made = call(server, "POST", "/v0/users/ada/keys", {"name": "ci"}, by=jwt)
    assert call(server, "PATCH", "/v0/users/ada", {"admin": True}).status_code == 200
    assert call(server, "DELETE", f"/v0/users/ada/keys/{made.json()['uuid']}", by=jwt).status_code == 204
    seen = acts(server)
    assert [record.act.action for record in seen][:4] == [
        "user_key.revoke",
        "user.update",
        "user_key.create",
        "user.sign_up",
    ]
    created = seen[2].act
    assert (created.actor_kind, created.address) == ("user", "127.0.0.1")
    assert created.request_id == made.headers["x-request-id"]
    assert seen[1].act.actor_kind == "user_key"
    assert seen[1].act.details == {"admin": True}
    assert made.json()["key"].removeprefix("bencher_user_") not in repr(seen)


def job_of(server: RunningServer, job: JobRecord) -> JobRecord | None:
    async def read(context: ServerContext) -> JobRecord | None:
        async with context.store.read() as connection:
            return await find_job(connection, job.id)

    return server.call(read)


@pytest.mark.parametrize("what", ["project", "organization"])
def test_what_is_deleted_runs_no_more_and_for_good_leaves_nothing(tmp_path: Path, database_url: str, what: str) -> None:
    settings = {"auth": {"signup": "open"}}
    with running_server(tmp_path / "server", database=database_url, settings=settings) as server:

        async def lay(context: ServerContext) -> tuple[Floor, JobRecord]:
            floor = Floor(store=context.store, now=context.clock.now())
            await floor.lay()
            await context.blobs.put(f"jobs/{floor.project}/output", b"content")
            return floor, await floor.job(await floor.spec())

        async def blob(context: ServerContext) -> bool:
            return await context.blobs.facts(f"jobs/{floor.project}/output") is not None

        async def finish(context: ServerContext) -> None:
            from sqlalchemy import update

            from metalmark.store.tables import jobs

            async def work(connection: Connection) -> None:
                key = f"jobs/{floor.project}/output"
                await connection.execute(update(jobs).where(jobs.c.id == job.id).values(output_key=key))

            await context.store.write(work)

        floor, job = server.call(lay)
        server.call(finish)
        path = f"/v0/{what}s/{getattr(floor, what)}"
        assert call(server, "DELETE", path).status_code == 204
        canceled = job_of(server, job)
        assert canceled is not None
        assert canceled.status is JobStatus.CANCELED
        assert call(server, "GET", path).status_code == 404
        floor, job = server.call(lay)
        server.call(finish)
        path = f"/v0/{what}s/{getattr(floor, what)}"
        assert call(server, "DELETE", f"{path}?hard=true").status_code == 204
        assert job_of(server, job) is None
        assert server.call(blob) is False
