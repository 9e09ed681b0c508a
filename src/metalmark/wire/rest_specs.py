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
    fallback: DateTimeField | None = None
    created: DateTimeField
    modified: DateTimeField
    archived: DateTimeField | None = None
