from __future__ import annotations

from uuid import UUID

from tests.unit.runner.modeled_server import CONFIG, NOW, SPEC, leased

from metalmark.runner.assignment import Assignment
from metalmark.wire import JobMessage


def test_job_of_our_server_has_a_lease_and_an_end_of_its_token() -> None:
    message = leased(UUID(int=9), 3)
    found = Assignment.of_lease(message)
    assert (found.job, found.lease, found.spec, found.config) == (UUID(int=9), 3, SPEC, CONFIG)
    assert (found.token, found.timeout_s, found.expires) == ("a.b.c", 60, message.expires)


def test_job_of_another_server_has_neither() -> None:
    message = JobMessage(uuid=UUID(int=9), spec=SPEC, config=CONFIG, oci_token="a.b.c", timeout=60, created=NOW)
    found = Assignment.of_public(message)
    assert (found.job, found.lease, found.expires, found.created) == (UUID(int=9), 0, None, NOW)


def test_token_is_shown_to_nobody() -> None:
    assert "a.b.c" not in repr(Assignment.of_lease(leased(UUID(int=9), 3)))
