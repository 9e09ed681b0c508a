from __future__ import annotations

import uuid
from datetime import UTC, datetime

from metalmark.model import ApiKey, KeyKind, ResourceName
from metalmark.server.account_bodies import created_user_key_body, project_key_body, token_body, user_key_body
from metalmark.store import KeyRecord

NOW = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)


def record(revoked: datetime | None = None) -> KeyRecord:
    return KeyRecord(
        id=uuid.UUID(int=1),
        owner_id=uuid.UUID(int=2),
        creator_id=uuid.UUID(int=3),
        name=ResourceName("ci"),
        created=NOW,
        expires=NOW,
        revoked=revoked,
    )


def test_the_text_of_a_key_is_in_the_answer_that_makes_it_and_in_no_other() -> None:
    key = ApiKey.new(KeyKind.USER)
    assert created_user_key_body(record(), key).key == key.text
    for body in (user_key_body(record()), project_key_body(record()), token_body(record())):
        assert key.text not in body.model_dump_json()
        assert "key" not in body.model_dump()


def test_a_token_that_is_not_kept_has_the_shape_that_programs_check() -> None:
    assert token_body(record()).token.count(".") == 2


def test_a_key_says_whose_it_is() -> None:
    assert user_key_body(record()).user == uuid.UUID(int=2)
    seen = project_key_body(record(revoked=NOW)).model_dump(mode="json", exclude_none=True)
    assert (seen["project"], seen["creator"]) == (str(uuid.UUID(int=2)), str(uuid.UUID(int=3)))
    assert seen["revoked"] == "2026-01-31T09:15:00Z"
