"""The step of the tables' history that brings accounts."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import (
    Boolean,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    UniqueConstraint,
)

from metalmark.store.columns import Document, Identifier, Instant, Words


def upgrade(op: Operations) -> None:
    """Take the step."""
    _audit_log(op)
    _indexes_of_audit_log(op)
    _organizations(op)
    _indexes_of_organizations(op)
    _signing_secrets(op)
    _indexes_of_signing_secrets(op)
    _users(op)
    _indexes_of_users(op)
    _invites(op)
    _indexes_of_invites(op)
    _organization_roles(op)
    _indexes_of_organization_roles(op)
    _projects(op)
    _indexes_of_projects(op)
    _tokens(op)
    _indexes_of_tokens(op)
    _user_keys(op)
    _indexes_of_user_keys(op)
    _project_keys(op)
    _indexes_of_project_keys(op)
    _project_roles(op)
    _indexes_of_project_roles(op)


def _audit_log(op: Operations) -> None:
    op.create_table(
        "audit_log",
        Column("id", Identifier(), nullable=False),
        Column("at", Instant(), nullable=False),
        Column("actor_kind", Words(), nullable=False),
        Column("actor_id", Identifier(), nullable=True),
        Column("action", Words(), nullable=False),
        Column("subject_kind", Words(), nullable=False),
        Column("subject_id", Identifier(), nullable=True),
        Column("address", Words(), nullable=True),
        Column("request_id", Words(), nullable=True),
        Column("status", Integer(), nullable=True),
        Column("details", Document(), nullable=True),
        PrimaryKeyConstraint("id", name="pk_audit_log"),
    )


def _indexes_of_audit_log(op: Operations) -> None:
    op.create_index("ix_audit_log_by_time", "audit_log", ["at"], unique=False)
    op.create_index("ix_audit_log_of_actor", "audit_log", ["actor_id", "at"], unique=False)
    op.create_index("ix_audit_log_of_subject", "audit_log", ["subject_id", "at"], unique=False)


def _organizations(op: Operations) -> None:
    op.create_table(
        "organizations",
        Column("id", Identifier(), nullable=False),
        Column("name", Words(), nullable=False),
        Column("slug", Words(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("modified", Instant(), nullable=False),
        Column("deleted", Instant(), nullable=True),
        PrimaryKeyConstraint("id", name="pk_organizations"),
        UniqueConstraint("slug", name="uq_organizations_slug"),
    )


def _indexes_of_organizations(op: Operations) -> None:
    op.create_index("ix_organizations_by_name", "organizations", ["name", "slug", "deleted"], unique=False)


def _signing_secrets(op: Operations) -> None:
    op.create_table(
        "signing_secrets",
        Column("id", Identifier(), nullable=False),
        Column("purpose", Words(), nullable=False),
        Column("secret", LargeBinary(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("retired", Instant(), nullable=True),
        PrimaryKeyConstraint("id", name="pk_signing_secrets"),
    )


def _indexes_of_signing_secrets(op: Operations) -> None:
    op.create_index("ix_signing_secrets_by_purpose", "signing_secrets", ["purpose", "created"], unique=False)


def _users(op: Operations) -> None:
    op.create_table(
        "users",
        Column("id", Identifier(), nullable=False),
        Column("name", Words(), nullable=False),
        Column("slug", Words(), nullable=False),
        Column("email", Words(), nullable=False),
        Column("admin", Boolean(), nullable=False),
        Column("locked", Boolean(), nullable=False),
        Column("session_epoch", Integer(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("modified", Instant(), nullable=False),
        PrimaryKeyConstraint("id", name="pk_users"),
        UniqueConstraint("email", name="uq_users_email"),
        UniqueConstraint("slug", name="uq_users_slug"),
    )


def _indexes_of_users(op: Operations) -> None:
    op.create_index("ix_users_by_name", "users", ["name", "slug"], unique=False)


def _invites(op: Operations) -> None:
    op.create_table(
        "invites",
        Column("id", Identifier(), nullable=False),
        Column("organization_id", Identifier(), nullable=True),
        Column("inviter_id", Identifier(), nullable=False),
        Column("email", Words(), nullable=False),
        Column("role", Words(), nullable=True),
        Column("created", Instant(), nullable=False),
        Column("expires", Instant(), nullable=False),
        Column("accepted", Instant(), nullable=True),
        ForeignKeyConstraint(["inviter_id"], ["users.id"], name="fk_invites_inviter_id", ondelete="CASCADE"),
        ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_invites_organization_id", ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("id", name="pk_invites"),
    )


def _indexes_of_invites(op: Operations) -> None:
    op.create_index("ix_invites_of_email", "invites", ["email", "created"], unique=False)
    op.create_index("ix_invites_of_inviter", "invites", ["inviter_id"], unique=False)
    op.create_index("ix_invites_of_organization", "invites", ["organization_id", "created"], unique=False)


def _organization_roles(op: Operations) -> None:
    op.create_table(
        "organization_roles",
        Column("organization_id", Identifier(), nullable=False),
        Column("user_id", Identifier(), nullable=False),
        Column("role", Words(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("modified", Instant(), nullable=False),
        ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_organization_roles_organization_id", ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_organization_roles_user_id", ondelete="CASCADE"),
        PrimaryKeyConstraint("organization_id", "user_id", name="pk_organization_roles"),
    )


def _indexes_of_organization_roles(op: Operations) -> None:
    op.create_index("ix_organization_roles_of_user", "organization_roles", ["user_id"], unique=False)


def _projects(op: Operations) -> None:
    op.create_table(
        "projects",
        Column("id", Identifier(), nullable=False),
        Column("organization_id", Identifier(), nullable=False),
        Column("name", Words(), nullable=False),
        Column("slug", Words(), nullable=False),
        Column("url", Words(), nullable=True),
        Column("visibility", Words(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("modified", Instant(), nullable=False),
        Column("deleted", Instant(), nullable=True),
        ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_projects_organization_id", ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("id", name="pk_projects"),
        UniqueConstraint("organization_id", "name", name="uq_projects_organization_id_name"),
        UniqueConstraint("slug", name="uq_projects_slug"),
    )


def _indexes_of_projects(op: Operations) -> None:
    op.create_index("ix_projects_by_name", "projects", ["name", "slug", "deleted", "visibility"], unique=False)


def _tokens(op: Operations) -> None:
    op.create_table(
        "tokens",
        Column("id", Identifier(), nullable=False),
        Column("user_id", Identifier(), nullable=False),
        Column("name", Words(), nullable=False),
        Column("hash", Words(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("expires", Instant(), nullable=False),
        Column("revoked", Instant(), nullable=True),
        Column("modified", Instant(), nullable=False),
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_tokens_user_id", ondelete="CASCADE"),
        PrimaryKeyConstraint("id", name="pk_tokens"),
        UniqueConstraint("hash", name="uq_tokens_hash"),
    )


def _indexes_of_tokens(op: Operations) -> None:
    op.create_index("ix_tokens_by_name", "tokens", ["user_id", "name", "id"], unique=False)


def _user_keys(op: Operations) -> None:
    op.create_table(
        "user_keys",
        Column("id", Identifier(), nullable=False),
        Column("user_id", Identifier(), nullable=False),
        Column("name", Words(), nullable=False),
        Column("hash", Words(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("expires", Instant(), nullable=False),
        Column("revoked", Instant(), nullable=True),
        Column("modified", Instant(), nullable=False),
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_user_keys_user_id", ondelete="CASCADE"),
        PrimaryKeyConstraint("id", name="pk_user_keys"),
        UniqueConstraint("hash", name="uq_user_keys_hash"),
    )


def _indexes_of_user_keys(op: Operations) -> None:
    op.create_index("ix_user_keys_by_name", "user_keys", ["user_id", "name", "id"], unique=False)


def _project_keys(op: Operations) -> None:
    op.create_table(
        "project_keys",
        Column("id", Identifier(), nullable=False),
        Column("project_id", Identifier(), nullable=False),
        Column("creator_id", Identifier(), nullable=True),
        Column("name", Words(), nullable=False),
        Column("hash", Words(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("expires", Instant(), nullable=False),
        Column("revoked", Instant(), nullable=True),
        Column("modified", Instant(), nullable=False),
        ForeignKeyConstraint(["creator_id"], ["users.id"], name="fk_project_keys_creator_id", ondelete="SET NULL"),
        ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_project_keys_project_id", ondelete="CASCADE"),
        PrimaryKeyConstraint("id", name="pk_project_keys"),
        UniqueConstraint("hash", name="uq_project_keys_hash"),
    )


def _indexes_of_project_keys(op: Operations) -> None:
    op.create_index("ix_project_keys_by_name", "project_keys", ["project_id", "name", "id"], unique=False)
    op.create_index("ix_project_keys_of_creator", "project_keys", ["creator_id"], unique=False)


def _project_roles(op: Operations) -> None:
    op.create_table(
        "project_roles",
        Column("project_id", Identifier(), nullable=False),
        Column("user_id", Identifier(), nullable=False),
        Column("role", Words(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("modified", Instant(), nullable=False),
        ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_project_roles_project_id", ondelete="CASCADE"),
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_project_roles_user_id", ondelete="CASCADE"),
        PrimaryKeyConstraint("project_id", "user_id", name="pk_project_roles"),
    )


def _indexes_of_project_roles(op: Operations) -> None:
    op.create_index("ix_project_roles_of_user", "project_roles", ["user_id"], unique=False)
