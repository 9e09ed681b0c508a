"""Tables of the registry: repositories, what is in them, and where its bytes are.

A *content* is a sequence of parts, each an object of the storage; it belongs to an upload or to a blob. A *blob* is a
content whose digest was checked, once for all repositories. A *link* makes a blob visible in a repository.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Table,
    UniqueConstraint,
    text,
)

from metalmark.store.columns import Document, Identifier, Instant, Words, created_column, id_column, metadata

_CONDEMNED = text("condemned IS NOT NULL")
_SUBJECT = text("subject IS NOT NULL")
_DAMAGED = text("damaged IS NOT NULL")
_LOOSE = text("loose IS NOT NULL")
_LEASED = text("touched IS NOT NULL")


def _repository_key() -> Column[UUID]:
    repository = ForeignKey("registry_repositories.id", ondelete="CASCADE")
    return Column("repository_id", Identifier, repository, primary_key=True)


def _of_manifest(digest: str) -> ForeignKeyConstraint:
    """The row is of a manifest of its repository, whose digest is in this column, and goes with it."""
    manifest = ["registry_manifests.repository_id", "registry_manifests.digest"]
    return ForeignKeyConstraint(["repository_id", digest], manifest, ondelete="CASCADE")


def _naming_columns() -> tuple[Column[Any], ...]:
    """What a manifest names: the manifest, and the digest that stands in it."""
    return (
        Column("repository_id", Identifier, primary_key=True),
        Column("manifest", Words, primary_key=True),
        Column("digest", Words, primary_key=True),
    )


registry_repositories = Table(
    "registry_repositories",
    metadata,
    id_column(),
    Column("project_id", Identifier, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    # What comes after the project in its name; empty for the project's own.
    Column("inner", Words, nullable=False),
    created_column(),
    UniqueConstraint("project_id", "inner"),
)

registry_contents = Table(
    "registry_contents",
    metadata,
    id_column(),
    Column("size_bytes", BigInteger, nullable=False),
    created_column(),
    # Since when nothing has referred to it: its objects go some time later, for somebody may be reading them.
    Column("condemned", Instant),
    Index("ix_registry_contents_condemned", "condemned", sqlite_where=_CONDEMNED, postgresql_where=_CONDEMNED),
)

registry_parts = Table(
    "registry_parts",
    metadata,
    id_column(),
    Column("content_id", Identifier, ForeignKey("registry_contents.id", ondelete="CASCADE"), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    UniqueConstraint("content_id", "position"),
)

registry_uploads = Table(
    "registry_uploads",
    metadata,
    id_column(),
    Column("repository_id", Identifier, ForeignKey("registry_repositories.id", ondelete="CASCADE"), nullable=False),
    Column("content_id", Identifier, ForeignKey("registry_contents.id", ondelete="CASCADE"), nullable=False),
    created_column(),
    Column("touched", Instant, nullable=False),
    Index("ix_registry_uploads_of_repository", "repository_id"),
    Index("ix_registry_uploads_of_content", "content_id"),
    Index("ix_registry_uploads_by_age", "touched"),
)

registry_blobs = Table(
    "registry_blobs",
    metadata,
    Column("digest", Words, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("content_id", Identifier, ForeignKey("registry_contents.id", ondelete="RESTRICT"), nullable=False),
    created_column(),
    # When its bytes were found to be others; whoever pushes it again repairs it.
    Column("damaged", Instant),
    # Since when it may be in no repository; None while it is in one for certain. Collections look at these alone.
    Column("loose", Instant),
    Index("ix_registry_blobs_of_content", "content_id"),
    Index("ix_registry_blobs_damaged", "digest", sqlite_where=_DAMAGED, postgresql_where=_DAMAGED),
    Index("ix_registry_blobs_loose", "loose", sqlite_where=_LOOSE, postgresql_where=_LOOSE),
)

registry_links = Table(
    "registry_links",
    metadata,
    _repository_key(),
    Column("digest", Words, ForeignKey("registry_blobs.digest", ondelete="RESTRICT"), primary_key=True),
    created_column(),
    # The lease: when somebody last asked for it who may be about to push a manifest of it. None once a manifest was
    # seen to name it: then there is nothing to look at until that goes.
    Column("touched", Instant),
    Index("ix_registry_links_of_blob", "digest"),
    Index("ix_registry_links_by_age", "touched", sqlite_where=_LEASED, postgresql_where=_LEASED),
)

registry_manifests = Table(
    "registry_manifests",
    metadata,
    _repository_key(),
    Column("digest", Words, primary_key=True),
    Column("media_type", Words, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("subject", Words),
    Column("artifact_type", Words),
    Column("annotations", Document),
    created_column(),
    # The lease: when somebody last asked for it who may be about to push an index of it, or a tag.
    Column("touched", Instant, nullable=False),
    Index(
        "ix_registry_manifests_of_subject",
        "repository_id",
        "subject",
        "digest",
        sqlite_where=_SUBJECT,
        postgresql_where=_SUBJECT,
    ),
)

registry_manifest_blobs = Table(
    "registry_manifest_blobs",
    metadata,
    *_naming_columns(),
    _of_manifest("manifest"),
    # A blob that a manifest names stays. Looked at when all is done: a project takes both with it, in any order.
    ForeignKeyConstraint(
        ["repository_id", "digest"],
        ["registry_links.repository_id", "registry_links.digest"],
        deferrable=True,
        initially="DEFERRED",
    ),
    Index("ix_registry_manifest_blobs_of_blob", "repository_id", "digest"),
)

registry_manifest_children = Table(
    "registry_manifest_children",
    metadata,
    *_naming_columns(),
    _of_manifest("manifest"),
    Index("ix_registry_manifest_children_of_child", "repository_id", "digest"),
)

registry_tags = Table(
    "registry_tags",
    metadata,
    _repository_key(),
    Column("tag", Words, primary_key=True),
    # The tag in lower case: lists are ordered by it.
    Column("folded", Words, nullable=False),
    Column("digest", Words, nullable=False),
    Column("pushed", Instant, nullable=False),
    _of_manifest("digest"),
    Index("ix_registry_tags_of_manifest", "repository_id", "digest"),
    Index("ix_registry_tags_in_order", "repository_id", "folded", "tag"),
)
