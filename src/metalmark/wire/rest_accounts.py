"""Accounts on the wire: sign-up and sign-in, users, their keys and tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metalmark.wire.scalars import (
    Body,
    DateTimeField,
    EmailField,
    Flag,
    JwtField,
    ResourceNameField,
    SlugField,
    Text,
    UserNameField,
    UuidField,
)

FOREVER_S = 2**32 - 1
"""What a key is good for that is given no end: 136 years."""

TtlField = Annotated[int, Field(strict=True, ge=1, le=FOREVER_S, description="Seconds until it expires.")]


class SignUpBody(Body):
    """Who wants an account. ``plan`` and ``recaptcha_token`` of other servers are ignored."""

    name: UserNameField
    slug: SlugField | None = None
    email: EmailField
    i_agree: Flag
    invite: JwtField | None = None
    claim: UuidField | None = None
    """An unclaimed organization that the new user leads then, instead of a personal one."""


class SignInBody(Body):
    """Who wants to sign in."""

    email: EmailField
    invite: JwtField | None = None


class ConfirmBody(Body):
    """The token of a mail."""

    token: JwtField


class AcceptBody(Body):
    """The invitation of a mail."""

    invite: JwtField


class MailedBody(Body):
    """Whom a mail was sent to."""

    email: EmailField


class UserBody(Body):
    """A user."""

    uuid: UuidField
    name: UserNameField
    slug: SlugField
    email: EmailField
    admin: Flag
    locked: Flag
    created: DateTimeField


class SessionBody(Body):
    """A sign-in: the token, and how long it is good for."""

    user: UserBody
    token: JwtField
    creation: DateTimeField
    expiration: DateTimeField


class ChangeUserBody(Body):
    """What of a user is to be different; null and nothing leave a field."""

    name: UserNameField | None = None
    slug: SlugField | None = None
    email: EmailField | None = None
    admin: Flag | None = None
    locked: Flag | None = None


class NewKeyBody(Body):
    """A key that is wanted."""

    name: ResourceNameField
    ttl: TtlField | None = None


class ChangeKeyBody(Body):
    """What of a key is to be different."""

    name: ResourceNameField | None = None


class UserKeyBody(Body):
    """A key of a user. ``revoked`` is left out while it is not."""

    uuid: UuidField
    user: UuidField
    name: ResourceNameField
    creation: DateTimeField
    expiration: DateTimeField
    revoked: DateTimeField | None = None


class CreatedUserKeyBody(Body):
    """A new key of a user, with its text for the only time."""

    uuid: UuidField
    user: UuidField
    name: ResourceNameField
    key: Text
    creation: DateTimeField
    expiration: DateTimeField


class TokenBody(Body):
    """An API token. Its text is not kept; what stands for it has its shape."""

    uuid: UuidField
    user: UuidField
    name: ResourceNameField
    token: JwtField
    creation: DateTimeField
    expiration: DateTimeField
    revoked: DateTimeField | None = None
