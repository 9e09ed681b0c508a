"""Records of accounts, organizations and projects as the bodies of answers."""

from __future__ import annotations

from metalmark.model import ApiKey
from metalmark.store import KeyRecord, MemberRecord, OrganizationRecord, ProjectRecord, UserRecord
from metalmark.wire import (
    CreatedProjectKeyBody,
    CreatedUserKeyBody,
    MemberBody,
    OrganizationBody,
    ProjectBody,
    ProjectKeyBody,
    TokenBody,
    UserBody,
    UserKeyBody,
)

_WITHHELD = "withheld.withheld.withheld"
"""Stands for the text of a token, which is not kept, in the shape that programs expect."""


def user_body(user: UserRecord) -> UserBody:
    """Return a user as its owner and administrators see it."""
    return UserBody(
        uuid=user.id,
        name=user.name,
        slug=user.slug,
        email=user.email,
        admin=user.admin,
        locked=user.locked,
        created=user.created,
    )


def user_key_body(key: KeyRecord) -> UserKeyBody:
    """Return a user's key."""
    return UserKeyBody(
        uuid=key.id,
        user=key.owner_id,
        name=key.name,
        creation=key.created,
        expiration=key.expires,
        revoked=key.revoked,
    )


def created_user_key_body(record: KeyRecord, key: ApiKey) -> CreatedUserKeyBody:
    """Return a user's new key with its text."""
    return CreatedUserKeyBody(
        uuid=record.id,
        user=record.owner_id,
        name=record.name,
        key=key.text,
        creation=record.created,
        expiration=record.expires,
    )


def token_body(token: KeyRecord) -> TokenBody:
    """Return an API token."""
    return TokenBody(
        uuid=token.id,
        user=token.owner_id,
        name=token.name,
        token=_WITHHELD,
        creation=token.created,
        expiration=token.expires,
        revoked=token.revoked,
    )


def organization_body(organization: OrganizationRecord) -> OrganizationBody:
    """Return an organization."""
    return OrganizationBody(
        uuid=organization.id,
        name=organization.name,
        slug=organization.slug,
        license=None,
        created=organization.created,
        modified=organization.modified,
        claimed=organization.claimed,
    )


def member_body(member: MemberRecord) -> MemberBody:
    """Return a member of an organization."""
    return MemberBody(
        uuid=member.user_id,
        name=member.name,
        slug=member.slug,
        email=member.email,
        role=member.role,
        created=member.created,
        modified=member.modified,
    )


def project_body(project: ProjectRecord) -> ProjectBody:
    """Return a project."""
    return ProjectBody(
        uuid=project.id,
        organization=project.organization_id,
        name=project.name,
        slug=project.slug,
        url=project.url,
        visibility=project.visibility,
        created=project.created,
        modified=project.modified,
        claimed=project.claimed,
    )


def project_key_body(key: KeyRecord) -> ProjectKeyBody:
    """Return a project's key."""
    return ProjectKeyBody(
        uuid=key.id,
        project=key.owner_id,
        creator=key.creator_id,
        name=key.name,
        creation=key.created,
        expiration=key.expires,
        revoked=key.revoked,
    )


def created_project_key_body(record: KeyRecord, key: ApiKey) -> CreatedProjectKeyBody:
    """Return a project's new key with its text."""
    return CreatedProjectKeyBody(
        uuid=record.id,
        project=record.owner_id,
        name=record.name,
        key=key.text,
        creation=record.created,
        expiration=record.expires,
    )
