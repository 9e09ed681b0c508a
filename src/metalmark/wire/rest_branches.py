"""Branches on the wire, with their heads, versions and start points."""

from __future__ import annotations

from metalmark.wire.scalars import (
    U32,
    Body,
    BranchIdField,
    BranchNameField,
    DateTimeField,
    Flag,
    GitHashField,
    SlugField,
    UuidField,
)

MAX_VERSIONS = 255
"""How many versions a new head takes over from its start point unless the request says another number."""


class BranchVersionBody(Body):
    """A version: its number along the head, counted from 0, and the commit if one was given."""

    number: U32
    hash: GitHashField | None = None


class StartPointBody(Body):
    """Where a head began: a version of a head of a branch."""

    branch: UuidField
    head: UuidField
    version: BranchVersionBody


class HeadBody(Body):
    """One line of history of a branch. ``version`` is set where a report is shown: the report's own."""

    uuid: UuidField
    start_point: StartPointBody | None = None
    version: BranchVersionBody | None = None
    created: DateTimeField
    replaced: DateTimeField | None = None
    """When another head took its place; null while it is the current one."""


class BranchBody(Body):
    """A branch as every answer shows it."""

    uuid: UuidField
    project: UuidField
    name: BranchNameField
    slug: SlugField
    head: HeadBody
    created: DateTimeField
    modified: DateTimeField
    archived: DateTimeField | None = None


class NewStartPoint(Body):
    """Where a new branch is to begin. One that does not exist is ignored."""

    branch: BranchIdField
    hash: GitHashField | None = None
    """The commit; the branch's latest version when it has none of this commit."""
    max_versions: U32 | None = None
    clone_thresholds: Flag | None = None


class StartPointUpdate(Body):
    """Where a branch is to begin from now on, if that differs from where it began."""

    branch: BranchIdField | None = None
    hash: GitHashField | None = None
    max_versions: U32 | None = None
    clone_thresholds: Flag | None = None
    reset: Flag | None = None
    """Begin a new head in any case, an empty one when there is no start point."""


class NewBranch(Body):
    """A branch to be made."""

    name: BranchNameField
    slug: SlugField | None = None
    start_point: NewStartPoint | None = None


class BranchPatch(Body):
    """Changes of a branch; what is null or left out stays as it is."""

    name: BranchNameField | None = None
    slug: SlugField | None = None
    start_point: StartPointUpdate | None = None
    archived: Flag | None = None
