"""Runners on the wire, as those who administer them see and change them."""

from __future__ import annotations

from pydantic import JsonValue

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


class RunnerProofBody(Body):
    """What a runner said of itself when it last connected. What it did not say is null."""

    proved: DateTimeField
    """When it said so."""
    version: Text | None
    protocol: Text | None
    """The sub-protocol of its channel; null for public messages."""
    os: Text | None
    architecture: Text | None
    sandboxes: tuple[Text, ...]
    """Those that worked; ``none`` says that it takes jobs without one."""
    cpu: int | None
    memory: int | None
    disk: int | None
    network: bool | None
    facts: dict[str, JsonValue] | None
    """What else it said of its host."""


class RunnerBody(Body):
    """A runner as every answer shows it. ``archived`` and ``last_heartbeat`` are null where there is none."""

    uuid: UuidField
    name: ResourceNameField
    slug: SlugField
    specs: tuple[UuidField, ...]
    """The specs that it serves, in the order they were added."""
    archived: DateTimeField | None = None
    last_heartbeat: DateTimeField | None = None
    key_created: DateTimeField
    """Since when its key is good."""
    created: DateTimeField
    modified: DateTimeField
    proof: RunnerProofBody | None = None
    """Null before it first connected, in lists and after changes."""


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
