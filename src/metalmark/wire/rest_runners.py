"""Runners on the wire, as those who administer them see and change them."""

from __future__ import annotations

from metalmark.wire.scalars import (
    Body,
    DateTimeField,
    Flag,
    ResourceIdField,
    ResourceNameField,
    SlugField,
    Text,
    UuidField,
)


class RunnerBody(Body):
    """A runner as every answer shows it. ``archived`` and ``last_heartbeat`` are null where there is none."""

    uuid: UuidField
    name: ResourceNameField
    slug: SlugField
    specs: tuple[UuidField, ...]
    """The specs that it serves, in the order they were added."""
    archived: DateTimeField | None = None
    last_heartbeat: DateTimeField | None = None
    created: DateTimeField
    modified: DateTimeField


class NewRunnerBody(Body):
    """A runner to be made."""

    name: ResourceNameField
    slug: SlugField | None = None


class UpdateRunnerBody(Body):
    """What of a runner is to be different; what is absent or null stays."""

    name: ResourceNameField | None = None
    slug: SlugField | None = None
    archived: Flag | None = None


class RunnerKeyBody(Body):
    """The key of a runner, in the only answer that ever shows it."""

    uuid: UuidField
    key: Text


class NewRunnerSpecBody(Body):
    """A spec for a runner to serve."""

    spec: ResourceIdField
