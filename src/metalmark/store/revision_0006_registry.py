"""The step of the tables' history that brings registry."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    LargeBinary,
    PrimaryKeyConstraint,
    UniqueConstraint,
    text,
)

from metalmark.store.columns import Document, Identifier, Instant, Words


def upgrade(op: Operations) -> None:
    """Take the step."""
    _registry_contents(op)
    _indexes_of_registry_contents(op)
    _registry_blobs(op)
    _indexes_of_registry_blobs(op)
    _registry_parts(op)
    _registry_repositories(op)
    _registry_links(op)
    _indexes_of_registry_links(op)
    _registry_manifests(op)
    _indexes_of_registry_manifests(op)
    _registry_uploads(op)
    _indexes_of_registry_uploads(op)
    _registry_manifest_blobs(op)
    _indexes_of_registry_manifest_blobs(op)
    _registry_manifest_children(op)
    _indexes_of_registry_manifest_children(op)
    _registry_tags(op)
    _indexes_of_registry_tags(op)


def _registry_contents(op: Operations) -> None:
    op.create_table(
        "registry_contents",
        Column("id", Identifier(), nullable=False),
        Column("size_bytes", BigInteger(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("condemned", Instant(), nullable=True),
        PrimaryKeyConstraint("id", name="pk_registry_contents"),
    )


def _indexes_of_registry_contents(op: Operations) -> None:
    op.create_index(
        "ix_registry_contents_condemned",
        "registry_contents",
        ["condemned"],
        unique=False,
        sqlite_where=text("condemned IS NOT NULL"),
        postgresql_where=text("condemned IS NOT NULL"),
    )


def _registry_blobs(op: Operations) -> None:
    op.create_table(
        "registry_blobs",
        Column("digest", Words(), nullable=False),
        Column("size_bytes", BigInteger(), nullable=False),
        Column("content_id", Identifier(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("damaged", Instant(), nullable=True),
        Column("loose", Instant(), nullable=True),
        ForeignKeyConstraint(
            ["content_id"], ["registry_contents.id"], name="fk_registry_blobs_content_id", ondelete="RESTRICT"
        ),
        PrimaryKeyConstraint("digest", name="pk_registry_blobs"),
    )


def _indexes_of_registry_blobs(op: Operations) -> None:
    op.create_index(
        "ix_registry_blobs_damaged",
        "registry_blobs",
        ["digest"],
        unique=False,
        sqlite_where=text("damaged IS NOT NULL"),
        postgresql_where=text("damaged IS NOT NULL"),
    )
    op.create_index(
        "ix_registry_blobs_loose",
        "registry_blobs",
        ["loose"],
        unique=False,
        sqlite_where=text("loose IS NOT NULL"),
        postgresql_where=text("loose IS NOT NULL"),
    )
    op.create_index("ix_registry_blobs_of_content", "registry_blobs", ["content_id"], unique=False)


def _registry_parts(op: Operations) -> None:
    op.create_table(
        "registry_parts",
        Column("id", Identifier(), nullable=False),
        Column("content_id", Identifier(), nullable=False),
        Column("position", BigInteger(), nullable=False),
        Column("size_bytes", BigInteger(), nullable=False),
        ForeignKeyConstraint(
            ["content_id"], ["registry_contents.id"], name="fk_registry_parts_content_id", ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("id", name="pk_registry_parts"),
        UniqueConstraint("content_id", "position", name="uq_registry_parts_content_id_position"),
    )


def _registry_repositories(op: Operations) -> None:
    op.create_table(
        "registry_repositories",
        Column("id", Identifier(), nullable=False),
        Column("project_id", Identifier(), nullable=False),
        Column("inner", Words(), nullable=False),
        Column("created", Instant(), nullable=False),
        ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_registry_repositories_project_id", ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("id", name="pk_registry_repositories"),
        UniqueConstraint("project_id", "inner", name="uq_registry_repositories_project_id_inner"),
    )


def _registry_links(op: Operations) -> None:
    op.create_table(
        "registry_links",
        Column("repository_id", Identifier(), nullable=False),
        Column("digest", Words(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("touched", Instant(), nullable=True),
        ForeignKeyConstraint(
            ["digest"], ["registry_blobs.digest"], name="fk_registry_links_digest", ondelete="RESTRICT"
        ),
        ForeignKeyConstraint(
            ["repository_id"], ["registry_repositories.id"], name="fk_registry_links_repository_id", ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("repository_id", "digest", name="pk_registry_links"),
    )


def _indexes_of_registry_links(op: Operations) -> None:
    op.create_index(
        "ix_registry_links_by_age",
        "registry_links",
        ["touched"],
        unique=False,
        sqlite_where=text("touched IS NOT NULL"),
        postgresql_where=text("touched IS NOT NULL"),
    )
    op.create_index("ix_registry_links_of_blob", "registry_links", ["digest"], unique=False)


def _registry_manifests(op: Operations) -> None:
    op.create_table(
        "registry_manifests",
        Column("repository_id", Identifier(), nullable=False),
        Column("digest", Words(), nullable=False),
        Column("media_type", Words(), nullable=False),
        Column("content", LargeBinary(), nullable=False),
        Column("size_bytes", BigInteger(), nullable=False),
        Column("subject", Words(), nullable=True),
        Column("artifact_type", Words(), nullable=True),
        Column("annotations", Document(), nullable=True),
        Column("created", Instant(), nullable=False),
        Column("touched", Instant(), nullable=False),
        ForeignKeyConstraint(
            ["repository_id"],
            ["registry_repositories.id"],
            name="fk_registry_manifests_repository_id",
            ondelete="CASCADE",
        ),
        PrimaryKeyConstraint("repository_id", "digest", name="pk_registry_manifests"),
    )


def _indexes_of_registry_manifests(op: Operations) -> None:
    op.create_index(
        "ix_registry_manifests_of_subject",
        "registry_manifests",
        ["repository_id", "subject", "digest"],
        unique=False,
        sqlite_where=text("subject IS NOT NULL"),
        postgresql_where=text("subject IS NOT NULL"),
    )


def _registry_uploads(op: Operations) -> None:
    op.create_table(
        "registry_uploads",
        Column("id", Identifier(), nullable=False),
        Column("repository_id", Identifier(), nullable=False),
        Column("content_id", Identifier(), nullable=False),
        Column("created", Instant(), nullable=False),
        Column("touched", Instant(), nullable=False),
        ForeignKeyConstraint(
            ["content_id"], ["registry_contents.id"], name="fk_registry_uploads_content_id", ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["repository_id"],
            ["registry_repositories.id"],
            name="fk_registry_uploads_repository_id",
            ondelete="CASCADE",
        ),
        PrimaryKeyConstraint("id", name="pk_registry_uploads"),
    )


def _indexes_of_registry_uploads(op: Operations) -> None:
    op.create_index("ix_registry_uploads_by_age", "registry_uploads", ["touched"], unique=False)
    op.create_index("ix_registry_uploads_of_content", "registry_uploads", ["content_id"], unique=False)
    op.create_index("ix_registry_uploads_of_repository", "registry_uploads", ["repository_id"], unique=False)


def _registry_manifest_blobs(op: Operations) -> None:
    op.create_table(
        "registry_manifest_blobs",
        Column("repository_id", Identifier(), nullable=False),
        Column("manifest", Words(), nullable=False),
        Column("digest", Words(), nullable=False),
        ForeignKeyConstraint(
            ["repository_id", "digest"],
            ["registry_links.repository_id", "registry_links.digest"],
            name="fk_registry_manifest_blobs_repository_id_digest",
            initially="DEFERRED",
            deferrable=True,
        ),
        ForeignKeyConstraint(
            ["repository_id", "manifest"],
            ["registry_manifests.repository_id", "registry_manifests.digest"],
            name="fk_registry_manifest_blobs_repository_id_manifest",
            ondelete="CASCADE",
        ),
        PrimaryKeyConstraint("repository_id", "manifest", "digest", name="pk_registry_manifest_blobs"),
    )


def _indexes_of_registry_manifest_blobs(op: Operations) -> None:
    op.create_index(
        "ix_registry_manifest_blobs_of_blob", "registry_manifest_blobs", ["repository_id", "digest"], unique=False
    )


def _registry_manifest_children(op: Operations) -> None:
    op.create_table(
        "registry_manifest_children",
        Column("repository_id", Identifier(), nullable=False),
        Column("manifest", Words(), nullable=False),
        Column("digest", Words(), nullable=False),
        ForeignKeyConstraint(
            ["repository_id", "manifest"],
            ["registry_manifests.repository_id", "registry_manifests.digest"],
            name="fk_registry_manifest_children_repository_id_manifest",
            ondelete="CASCADE",
        ),
        PrimaryKeyConstraint("repository_id", "manifest", "digest", name="pk_registry_manifest_children"),
    )


def _indexes_of_registry_manifest_children(op: Operations) -> None:
    op.create_index(
        "ix_registry_manifest_children_of_child",
        "registry_manifest_children",
        ["repository_id", "digest"],
        unique=False,
    )


def _registry_tags(op: Operations) -> None:
    op.create_table(
        "registry_tags",
        Column("repository_id", Identifier(), nullable=False),
        Column("tag", Words(), nullable=False),
        Column("folded", Words(), nullable=False),
        Column("digest", Words(), nullable=False),
        Column("pushed", Instant(), nullable=False),
        ForeignKeyConstraint(
            ["repository_id", "digest"],
            ["registry_manifests.repository_id", "registry_manifests.digest"],
            name="fk_registry_tags_repository_id_digest",
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["repository_id"], ["registry_repositories.id"], name="fk_registry_tags_repository_id", ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("repository_id", "tag", name="pk_registry_tags"),
    )


def _indexes_of_registry_tags(op: Operations) -> None:
    op.create_index("ix_registry_tags_in_order", "registry_tags", ["repository_id", "folded", "tag"], unique=False)
    op.create_index("ix_registry_tags_of_manifest", "registry_tags", ["repository_id", "digest"], unique=False)
