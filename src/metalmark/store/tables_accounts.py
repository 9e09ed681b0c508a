"""Tables of people and what they may do: users, credentials, organizations, projects, roles, and the audit log."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, LargeBinary, Table, UniqueConstraint

from metalmark.store.columns import (
    Document,
    Identifier,
    Instant,
    Words,
    created_column,
    id_column,
    metadata,
    modified_column,
)


def _key_columns() -> tuple[Column[Any], ...]:
    return (
        Column("name", Words, nullable=False),
        # SHA-256 of the whole key, in hex. A key is 178 random bits: nothing slower is needed against guessing.
        Column("hash", Words, nullable=False, unique=True),
        created_column(),
        Column("expires", Instant, nullable=False),
        Column("revoked", Instant),
        modified_column(),
    )


users = Table(
    "users",
    metadata,
    id_column(),
    Column("name", Words, nullable=False),
    Column("slug", Words, nullable=False, unique=True),
    Column("email", Words, nullable=False, unique=True),
    Column("admin", Boolean, nullable=False),
    Column("locked", Boolean, nullable=False),
    # Goes up to end all sign-ins so far; each of them says which number it was given.
    Column("session_epoch", Integer, nullable=False),
    created_column(),
    modified_column(),
    Index("ix_users_by_name", "name", "slug"),
)

user_keys = Table(
    "user_keys",
    metadata,
    id_column(),
    Column("user_id", Identifier, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    *_key_columns(),
    Index("ix_user_keys_by_name", "user_id", "name", "id"),
)

tokens = Table(
    "tokens",
    metadata,
    id_column(),
    Column("user_id", Identifier, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    *_key_columns(),
    Index("ix_tokens_by_name", "user_id", "name", "id"),
)

signing_secrets = Table(
    "signing_secrets",
    metadata,
    id_column(),
    # What the key signs. The newest of a purpose that is not retired signs; retired ones verify until they are deleted.
    Column("purpose", Words, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    created_column(),
    Column("retired", Instant),
    Index("ix_signing_secrets_by_purpose", "purpose", "created"),
)

organizations = Table(
    "organizations",
    metadata,
    id_column(),
    Column("name", Words, nullable=False),
    Column("slug", Words, nullable=False, unique=True),
    created_column(),
    modified_column(),
    Column("deleted", Instant),
    # The last column lets those that are not deleted be counted without looking at them.
    Index("ix_organizations_by_name", "name", "slug", "deleted"),
)

organization_roles = Table(
    "organization_roles",
    metadata,
    Column("organization_id", Identifier, ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Identifier, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("role", Words, nullable=False),
    created_column(),
    modified_column(),
    Index("ix_organization_roles_of_user", "user_id"),
)

invites = Table(
    "invites",
    metadata,
    id_column(),
    # None where somebody is invited to the server and to no organization of it.
    Column("organization_id", Identifier, ForeignKey("organizations.id", ondelete="CASCADE")),
    Column("inviter_id", Identifier, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("email", Words, nullable=False),
    Column("role", Words),
    created_column(),
    Column("expires", Instant, nullable=False),
    Column("accepted", Instant),
    Index("ix_invites_of_email", "email", "created"),
    Index("ix_invites_of_organization", "organization_id", "created"),
    Index("ix_invites_of_inviter", "inviter_id"),
)

projects = Table(
    "projects",
    metadata,
    id_column(),
    Column("organization_id", Identifier, ForeignKey("organizations.id", ondelete="CASCADE"), nullable=False),
    Column("name", Words, nullable=False),
    Column("slug", Words, nullable=False, unique=True),
    Column("url", Words),
    Column("visibility", Words, nullable=False),
    created_column(),
    modified_column(),
    Column("deleted", Instant),
    UniqueConstraint("organization_id", "name"),
    Index("ix_projects_by_name", "name", "slug", "deleted", "visibility"),
)

project_roles = Table(
    "project_roles",
    metadata,
    Column("project_id", Identifier, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Identifier, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("role", Words, nullable=False),
    created_column(),
    modified_column(),
    Index("ix_project_roles_of_user", "user_id"),
)

project_keys = Table(
    "project_keys",
    metadata,
    id_column(),
    Column("project_id", Identifier, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("creator_id", Identifier, ForeignKey("users.id", ondelete="SET NULL")),
    *_key_columns(),
    Index("ix_project_keys_by_name", "project_id", "name", "id"),
    Index("ix_project_keys_of_creator", "creator_id"),
)

audit_log = Table(
    "audit_log",
    metadata,
    id_column(),
    Column("at", Instant, nullable=False),
    # No foreign keys: the log outlives what it tells of.
    Column("actor_kind", Words, nullable=False),
    Column("actor_id", Identifier),
    Column("action", Words, nullable=False),
    Column("subject_kind", Words, nullable=False),
    Column("subject_id", Identifier),
    Column("address", Words),
    Column("request_id", Words),
    Column("status", Integer),
    Column("details", Document),
    Index("ix_audit_log_by_time", "at"),
    Index("ix_audit_log_of_actor", "actor_id", "at"),
    Index("ix_audit_log_of_subject", "subject_id", "at"),
)
