"""What the audit log keeps of a request."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from starlette.requests import HTTPConnection

from metalmark.model import Email, Slug, UserName, new_id
from metalmark.server.actor import Actor, Anonymous, ProjectKeyActor, UserActor, Via
from metalmark.server.audit import act_of
from metalmark.store import UserRecord

NOW = datetime(2026, 1, 31, tzinfo=UTC)
USER = UserRecord(
    id=new_id(),
    name=UserName("Ada"),
    slug=Slug("ada"),
    email=Email("ada@example.com"),
    admin=True,
    locked=False,
    session_epoch=0,
    created=NOW,
    modified=NOW,
)
KEY = new_id()


def request() -> HTTPConnection:
    state = {"request_id": "0197c3d4-0000-7000-8000-000000000001", "client_address": "192.0.2.7"}
    headers = [(b"authorization", b"Bearer bencher_user_secret")]
    return HTTPConnection({"type": "http", "headers": headers, "state": state})


@pytest.mark.parametrize(
    ("actor", "kind", "actor_id"),
    [
        (UserActor(user=USER, via=Via.SESSION), "user", USER.id),
        (UserActor(user=USER, via=Via.KEY, key_id=KEY), "user_key", USER.id),
        (ProjectKeyActor(project_id=new_id(), key_id=KEY), "project_key", KEY),
        (Anonymous(), "anonymous", None),
    ],
)
def test_an_act_says_who_did_what_from_where(actor: Actor, kind: str, actor_id: object) -> None:
    subject = new_id()
    act = act_of(request(), actor, "runner.update", "runner", subject, archived=True)
    assert (act.actor_kind, act.actor_id) == (kind, actor_id)
    assert (act.action, act.subject_kind, act.subject_id) == ("runner.update", "runner", subject)
    assert (act.address, act.request_id) == ("192.0.2.7", "0197c3d4-0000-7000-8000-000000000001")
    assert act.details == {"archived": True}
    assert "secret" not in repr(act)
