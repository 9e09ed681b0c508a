"""Organizations and their members on the wire."""

from __future__ import annotations

from typing import ClassVar

from pydantic.json_schema import SkipJsonSchema

from metalmark.model import OrganizationRole
from metalmark.wire.scalars import (
    Body,
    DateTimeField,
    EmailField,
    Flag,
    JwtField,
    ResourceNameField,
    SlugField,
    StrictPatch,
    UserNameField,
    UuidField,
)


class OrganizationBody(Body):
    """An organization. ``license`` is always null, and ``claimed`` is while it has no member."""

    uuid: UuidField
    name: ResourceNameField
    slug: SlugField
    license: JwtField | None = None
    created: DateTimeField
    modified: DateTimeField
    claimed: DateTimeField | None = None


class NewOrganizationBody(Body):
    """An organization that is wanted."""

    name: ResourceNameField
    slug: SlugField | None = None


class ChangeOrganizationBody(StrictPatch):
    """What of an organization is to be different. A license is taken and ignored: there are none."""

    clearable: ClassVar[frozenset[str]] = frozenset(("license",))

    name: ResourceNameField | SkipJsonSchema[None] = None
    slug: SlugField | SkipJsonSchema[None] = None
    license: JwtField | None = None


class ClaimBody(Body):
    """Nothing: who claims is who asks."""


class AllowedBody(Body):
    """Whether the caller may."""

    allowed: Flag


class NewMemberBody(Body):
    """Who is invited, and as what."""

    email: EmailField
    name: UserNameField | None = None
    role: OrganizationRole


class ChangeMemberBody(Body):
    """What a member is to be."""

    role: OrganizationRole | None = None


class MemberBody(Body):
    """A member of an organization."""

    uuid: UuidField
    name: UserNameField
    slug: SlugField
    email: EmailField
    role: OrganizationRole
    created: DateTimeField
    modified: DateTimeField
