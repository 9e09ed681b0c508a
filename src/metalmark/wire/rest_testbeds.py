"""Testbeds on the wire: where something is measured, and on which spec."""

from __future__ import annotations

from typing import ClassVar

from pydantic.json_schema import SkipJsonSchema

from metalmark.wire.rest_specs import SpecBody
from metalmark.wire.scalars import (
    Body,
    DateTimeField,
    Flag,
    ResourceIdField,
    ResourceNameField,
    SlugField,
    StrictPatch,
    UuidField,
)


class TestbedBody(Body):
    """A testbed as every answer shows it; in a report, ``spec`` is that of the report's job."""

    # Its name begins as test classes do; pytest is not to collect it.
    __test__ = False

    uuid: UuidField
    project: UuidField
    name: ResourceNameField
    slug: SlugField
    spec: SpecBody | None = None
    created: DateTimeField
    modified: DateTimeField
    archived: DateTimeField | None = None


class NewTestbed(Body):
    """A testbed to be made."""

    name: ResourceNameField
    slug: SlugField | None = None
    spec: ResourceIdField | None = None


class TestbedPatch(StrictPatch):
    """Changes of a testbed; a ``spec`` of null clears it."""

    __test__ = False
    clearable: ClassVar[frozenset[str]] = frozenset({"spec"})

    name: ResourceNameField | SkipJsonSchema[None] = None
    slug: SlugField | SkipJsonSchema[None] = None
    spec: ResourceIdField | None = None
    archived: Flag | SkipJsonSchema[None] = None
