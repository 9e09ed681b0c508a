"""The server's own tokens: JWTs of HMAC-SHA-256 for sign-ins, confirmations, invitations and pulls by runners.

A token names its user by identifier, not by address: whoever takes over an address that another gave up must not be
taken for that other. To clients all of this is opaque.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from metalmark.model import Unauthenticated, has_jwt_shape
from metalmark.system import Clock

if TYPE_CHECKING:
    from metalmark.store import Store

_ALGORITHM = "HS256"
_ISSUER_SHOWN = 200
_log = structlog.get_logger(__name__)
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)


class Audience(StrEnum):
    """What a token is for; the value is its ``aud``."""

    CONFIRM = "auth"
    SESSION = "client"
    TOKEN = "api_key"  # noqa: S105  # the name of a kind, not one
    INVITE = "invite"
    REGISTRY = "oci"
    RUNNER_PULL = "oci_runner"


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """What an invitation says beside its address: where to, and as what."""

    id: UUID
    """Of the invitation's record; a token without one is no longer good."""
    organization_id: UUID
    role: str


@dataclass(frozen=True, kw_only=True)
class PullLease:
    """A job, and the lease that its runner was given."""

    job: UUID
    number: int


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What a token for a registry allows."""

    repository: str
    actions: tuple[str, ...]
    lease: PullLease | None = None
    """Whose token of a runner it is: it is good while that job is held under that lease."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What a token of the registry's token service was made from, and what its holder asked it for."""

    via: str
    """The kind of credential; empty for nobody's."""
    key_id: UUID | None
    """The key or API token, where it was one."""
    access: tuple[Pull, ...]


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a valid token says."""

    audience: Audience
    subject: str
    """A user's or runner's identifier; of an invitation, the address."""
    issued: datetime
    expires: datetime
    epoch: int = 0
    """Of a sign-in or its confirmation: which of its user's epochs it belongs to."""
    invitation: Invitation | None = None
    pull: Pull | None = None
    grant: Grant | None = None

    @property
    def subject_id(self) -> UUID:
        """The subject as an identifier.

        Raises:
            Unauthenticated: It is none.
        """
        try:
            return UUID(self.subject)
        except ValueError as error:
            raise Unauthenticated("this token names nobody", why="it was not made for this") from error


@dataclass(frozen=True, kw_only=True)
class SignedToken:
    """A new token, and the times that it says."""

    text: str = field(repr=False)
    issued: datetime
    expires: datetime


class Signer:
    """Makes and checks tokens.

    Args:
        secrets: Keys, the newest first: it signs, and all are believed.
        issuer: What ``iss`` is; tokens of another are not believed.
        clock: Where the time of day is read.
    """

    def __init__(self, *, secrets: Sequence[bytes], issuer: str, clock: Clock) -> None:
        self._keys = [OctKey.import_key(secret) for secret in secrets]
        self._issuer = issuer
        self._told_of: str | None = None
        self._clock = clock

    def sign(
        self,
        audience: Audience,
        subject: str,
        *,
        ttl_s: int,
        epoch: int = 0,
        invitation: Invitation | None = None,
        pull: Pull | None = None,
        grant: Grant | None = None,
    ) -> SignedToken:
        """Return a new token that is good for ``ttl_s`` seconds from now."""
        issued = self._clock.now().replace(microsecond=0)
        expires = issued + timedelta(seconds=min(ttl_s, (_LATEST - issued) // timedelta(seconds=1)))
        organization = None
        if invitation is not None:
            uuid, role = str(invitation.organization_id), invitation.role
            organization = {"uuid": uuid, "role": role, "invite": str(invitation.id)}
        claims: dict[str, object] = {
            "aud": audience.value,
            "exp": int(expires.timestamp()),
            "iat": int(issued.timestamp()),
            "iss": self._issuer,
            "sub": subject,
            "org": organization,
            "state": None,
            "oci": None if pull is None else _document_of(pull),
            "epoch": epoch,
        }
        if grant is not None:
            key = None if grant.key_id is None else str(grant.key_id)
            claims["grant"] = {"via": grant.via, "key": key, "access": [_document_of(part) for part in grant.access]}
        header = {"typ": "JWT", "alg": _ALGORITHM}
        text = jws.serialize_compact(header, json.dumps(claims, separators=(",", ":")), self._keys[0])
        return SignedToken(text=text, issued=issued, expires=expires)

    def read(self, text: str, *audiences: Audience) -> Claims:
        """Return what a token says, if it is one of ours, for one of these uses, and has not expired.

        Raises:
            Unauthenticated: It is not, and why. The token is not repeated.
        """
        document = self._verified(text)
        if document.get("iss") != self._issuer:
            self._tell_of(document.get("iss"))
            raise Unauthenticated("this token is of another server", hint="sign in again")
        audience = next((known for known in audiences if known.value == document.get("aud")), None)
        if audience is None:
            raise Unauthenticated("this token is for another use", hint="a confirmation or invitation is no credential")
        claims = _claims(audience, document)
        if self._clock.now() >= claims.expires:
            raise Unauthenticated("this token has expired", hint="sign in again, or ask for a new one")
        return claims

    def _tell_of(self, issuer: object) -> None:
        # Signed with a key of this database: a server beside this one, or this one before, is configured otherwise.
        if self._told_of is None:
            self._told_of = str(issuer)[:_ISSUER_SHOWN]
            hint = "give all servers of a database the same auth.issuer, or console.url"
            _log.warning(
                "a token of this database has another issuer", found=self._told_of, own=self._issuer, hint=hint
            )

    def _verified(self, text: str) -> Mapping[str, object]:
        if has_jwt_shape(text):
            for key in self._keys:
                try:
                    document = json.loads(jws.deserialize_compact(text, key, algorithms=[_ALGORITHM]).payload)
                except (JoseError, ValueError, RecursionError, TypeError, AttributeError):
                    # Whatever a stranger packs into three segments, it was not signed with this key.
                    continue
                if isinstance(document, dict):
                    return document
        raise Unauthenticated("this token is not valid", why="no key of this server signed it", hint="sign in again")


def _claims(audience: Audience, document: Mapping[str, object]) -> Claims:
    # Signed by us, and yet another release of ours may have made it.
    try:
        organization, oci, grant = document.get("org"), document.get("oci"), document.get("grant")
        return Claims(
            audience=audience,
            subject=str(document["sub"]),
            issued=datetime.fromtimestamp(int(str(document["iat"])), UTC),
            expires=datetime.fromtimestamp(int(str(document["exp"])), UTC),
            epoch=int(str(document.get("epoch", 0))),
            invitation=_invitation(organization) if isinstance(organization, dict) else None,
            pull=_pull(oci) if isinstance(oci, dict) else None,
            grant=_grant(grant) if isinstance(grant, dict) else None,
        )
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        raise Unauthenticated("this token is not complete", hint="sign in again") from error


def _invitation(document: Mapping[str, object]) -> Invitation:
    return Invitation(
        id=UUID(str(document["invite"])), organization_id=UUID(str(document["uuid"])), role=str(document["role"])
    )


def _document_of(pull: Pull) -> dict[str, object]:
    document: dict[str, object] = {"repository": pull.repository, "actions": list(pull.actions)}
    return document if pull.lease is None else document | {"job": str(pull.lease.job), "lease": pull.lease.number}


def _pull(document: Mapping[str, object]) -> Pull:
    actions = document["actions"]
    if not isinstance(actions, list):
        raise TypeError
    lease = None
    if document.get("job") is not None:
        lease = PullLease(job=UUID(str(document["job"])), number=int(str(document["lease"])))
    return Pull(repository=str(document["repository"]), actions=tuple(str(action) for action in actions), lease=lease)


def _grant(document: Mapping[str, object]) -> Grant:
    access, key = document["access"], document["key"]
    if not isinstance(access, list):
        raise TypeError
    return Grant(
        via=str(document["via"]),
        key_id=None if key is None else UUID(str(key)),
        access=tuple(_pull(part) for part in access),
    )


async def open_signer(store: Store, *, issuer: str, clock: Clock) -> Signer:
    """Return the signer of a server, with the keys that all its processes share; the first start makes one."""
    from metalmark.store import ensure_signing_secrets  # noqa: PLC0415  the store is heavy, and a signer alone needs none

    secrets = await store.write(lambda connection: ensure_signing_secrets(connection, now=clock.now()))
    return Signer(secrets=secrets, issuer=issuer, clock=clock)
