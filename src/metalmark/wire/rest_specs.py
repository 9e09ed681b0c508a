"""Specs on the wire: what hardware a job asks for."""

from __future__ import annotations

from typing import Literal

from metalmark.wire.scalars import (
    Body,
    DateTimeField,
    Flag,
    PositiveI32,
    PositiveI64,
    ResourceNameField,
    SlugField,
    UuidField,
)

OperatingSystem = Literal["linux", "macos", "windows"]
Architecture = Literal["x86_64", "aarch64"]
SpecSandbox = Literal["firecracker", "qemu", "container", "microvm"]
"""``microvm`` is either of the first two."""


class SpecBody(Body):
    """A spec as every answer shows it. ``sandbox``, ``fallback`` and ``archived`` are null where there is none."""

    uuid: UuidField
    name: ResourceNameField
    slug: SlugField
    os: OperatingSystem
    architecture: Architecture
    sandbox: SpecSandbox | None = None
    cpu: PositiveI32
    memory: PositiveI64
    disk: PositiveI64
    network: Flag
    anonymous: Flag = False
    """Whether jobs of strangers may run on it."""
    fallback: DateTimeField | None = None
    created: DateTimeField
    modified: DateTimeField
    archived: DateTimeField | None = None


class NewSpecBody(Body):
    """A spec to be made. Only its name, slug, fallback and anonymous flag can be changed later."""

    name: ResourceNameField
    slug: SlugField | None = None
    os: OperatingSystem
    architecture: Architecture
    sandbox: SpecSandbox | None = None
    cpu: PositiveI32
    memory: PositiveI64
    disk: PositiveI64
    network: Flag = False
    fallback: Flag = False
    anonymous: Flag = False


class UpdateSpecBody(Body):
    """What of a spec is to be different; what is absent or null stays."""

    name: ResourceNameField | None = None
    slug: SlugField | None = None
    fallback: Flag | None = None
    anonymous: Flag | None = None
    archived: Flag | None = None
