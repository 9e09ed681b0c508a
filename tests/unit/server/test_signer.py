from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey
from structlog.testing import capture_logs

from metalmark.model import Unauthenticated
from metalmark.server.signer import Audience, Invitation, Pull, Signer
from metalmark.testing.fake_clock import FakeClock

SECRET, OTHER = b"s" * 32, b"o" * 32
USER = uuid.UUID("01970000-0000-7000-8000-000000000001")


def signer(*secrets: bytes, clock: FakeClock | None = None, issuer: str = "http://localhost:3000/") -> Signer:
    return Signer(secrets=secrets or (SECRET,), issuer=issuer, clock=clock or FakeClock())


def forged(claims: object, header: Mapping[str, str] | None = None, key: bytes = SECRET) -> str:
    text = json.dumps(claims)
    return jws.serialize_compact(dict(header or {"alg": "HS256"}), text, OctKey.import_key(key))


def test_a_token_says_what_was_signed() -> None:
    invitation = Invitation(id=uuid.uuid4(), organization_id=uuid.uuid4(), role="member")
    pull = Pull(repository="01970000", actions=("pull",))
    token = signer().sign(Audience.INVITE, "ada@example.com", ttl_s=60, invitation=invitation, pull=pull)
    claims = signer().read(token.text, Audience.INVITE)
    assert (claims.subject, claims.invitation, claims.pull) == ("ada@example.com", invitation, pull)
    assert claims.expires - claims.issued == timedelta(seconds=60)
    assert (claims.issued, claims.expires) == (token.issued, token.expires)


def test_its_document_has_the_fields_that_programs_know() -> None:
    text = signer().sign(Audience.SESSION, str(USER), ttl_s=30 * 86400).text
    head, body, _ = (json.loads(base64.urlsafe_b64decode(part + "==")) if part else {} for part in
                     [*text.split(".")[:2], ""])  # fmt: skip
    assert head == {"typ": "JWT", "alg": "HS256"}
    assert (body["aud"], body["sub"], body["iss"]) == ("client", str(USER), "http://localhost:3000/")
    assert body["exp"] - body["iat"] == 2592000
    assert {body["org"], body["state"], body["oci"]} == {None}


def test_a_token_ends_exactly_when_it_says() -> None:
    clock = FakeClock()
    reader = signer(clock=clock)
    token = reader.sign(Audience.SESSION, str(USER), ttl_s=60).text
    clock.advance(59.9)
    assert reader.read(token, Audience.SESSION).subject_id == USER
    clock.advance(0.1)
    with pytest.raises(Unauthenticated, match="expired"):
        reader.read(token, Audience.SESSION)


def test_a_token_is_good_for_its_own_use_only() -> None:
    token = signer().sign(Audience.CONFIRM, str(USER), ttl_s=60).text
    for audience in set(Audience) - {Audience.CONFIRM}:
        with pytest.raises(Unauthenticated, match="another use"):
            signer().read(token, audience)


def test_a_token_of_another_server_is_refused() -> None:
    token = signer(issuer="https://other/").sign(Audience.SESSION, str(USER), ttl_s=60).text
    with pytest.raises(Unauthenticated, match="another server"):
        signer().read(token, Audience.SESSION)


def test_older_keys_are_believed_until_they_are_gone() -> None:
    token = signer(OTHER).sign(Audience.SESSION, str(USER), ttl_s=60).text
    assert signer(SECRET, OTHER).read(token, Audience.SESSION).subject_id == USER
    assert signer(SECRET, OTHER).sign(Audience.SESSION, str(USER), ttl_s=60).text == (
        signer(SECRET).sign(Audience.SESSION, str(USER), ttl_s=60).text
    )
    with pytest.raises(Unauthenticated, match="not valid"):
        signer(SECRET).read(token, Audience.SESSION)


def test_a_token_can_outlive_the_calendar() -> None:
    token = signer().sign(Audience.TOKEN, str(USER), ttl_s=2**60)
    assert token.expires.year == 9999
    assert signer().read(token.text, Audience.TOKEN).expires == token.expires


@pytest.mark.parametrize(
    "claims",
    [
        {},
        [],
        "text",
        None,
        {"aud": "client"},
        {"aud": "client", "sub": "x", "iat": "a", "exp": 9e99},
        {"aud": "client", "sub": "x", "iat": 0, "exp": 10**30},
        {"aud": "client", "sub": "x", "iat": 0, "exp": None},
        {"aud": ["client"], "sub": "x", "iat": 0, "exp": 2**33},
        {"aud": "client", "sub": "x", "iat": 0, "exp": 2**33, "org": {"uuid": "x"}},
        {"aud": "client", "sub": "x", "iat": 0, "exp": 2**33, "oci": {"repository": "x", "actions": 3}},
    ],
    ids=repr,
)
def test_what_we_signed_without_meaning_it_is_refused(claims: object) -> None:
    if isinstance(claims, dict) and claims:
        claims = {"iss": "http://localhost:3000/", **claims}
    with pytest.raises(Unauthenticated):
        signer().read(forged(claims), Audience.SESSION)


def test_another_algorithm_is_refused() -> None:
    text = signer().sign(Audience.SESSION, str(USER), ttl_s=60).text
    body = text.split(".")[1]
    for algorithm in ("none", "HS512", "RS256"):
        head = base64.urlsafe_b64encode(json.dumps({"alg": algorithm}).encode()).rstrip(b"=").decode()
        with pytest.raises(Unauthenticated):
            signer().read(f"{head}.{body}.e30", Audience.SESSION)
    with pytest.raises(Unauthenticated):
        signer().read(forged({"aud": "client"}, {"alg": "HS256"}, OTHER), Audience.SESSION)


def test_a_subject_that_is_no_identifier_names_nobody() -> None:
    token = signer().sign(Audience.SESSION, "ada@example.com", ttl_s=60).text
    with pytest.raises(Unauthenticated):
        _ = signer().read(token, Audience.SESSION).subject_id


def test_a_token_does_not_show_itself() -> None:
    token = signer().sign(Audience.SESSION, str(USER), ttl_s=60)
    assert token.text not in repr(token)


@given(st.text(max_size=200))
def test_no_text_but_ours_is_a_token(text: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        signer().read(text, Audience.SESSION)
    assert len(text) < 8 or text not in str(caught.value)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=3, max_size=3))
def test_no_segments_but_ours_are_a_token(parts: list[bytes]) -> None:
    text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    with pytest.raises(Unauthenticated):
        signer().read(text, Audience.SESSION)


def test_another_issuer_on_the_same_keys_is_told_of_once() -> None:
    reader, beside = signer(), signer(issuer="http://beside.example/")
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(Unauthenticated, match="another server"):
                reader.read(beside.sign(Audience.SESSION, str(USER), ttl_s=60).text, Audience.SESSION)
        # What anybody can make up says nothing about the servers of this database.
        stranger = signer(OTHER, issuer="http://stranger.example/")
        with pytest.raises(Unauthenticated):
            reader.read(stranger.sign(Audience.SESSION, str(USER), ttl_s=60).text, Audience.SESSION)
    (told,) = logs
    assert (told["log_level"], told["found"], told["own"]) == (
        "warning",
        "http://beside.example/",
        "http://localhost:3000/",
    )
