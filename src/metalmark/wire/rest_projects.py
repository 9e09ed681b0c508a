"""Projects and their keys on the wire."""

from __future__ import annotations

from typing import ClassVar

from pydantic.json_schema import SkipJsonSchema

from metalmark.model import Visibility
from metalmark.wire.scalars import (
    Body,
    DateTimeField,
    ResourceNameField,
    SlugField,
    StrictPatch,
    Text,
    UrlField,
    UserNameField,
    UuidField,
)


class PublicUserBody(Body):
    """What everybody may know of a user."""

    uuid: UuidField
    name: UserNameField
    slug: SlugField


class ProjectBody(Body):
    """A project. ``claimed`` is null while its organization has no member."""

    uuid: UuidField
    organization: UuidField
    name: ResourceNameField
    slug: SlugField
    url: UrlField | None = None
    visibility: Visibility
    created: DateTimeField
    modified: DateTimeField
    claimed: DateTimeField | None = None


class NewProject(Body):
    """A project that is wanted."""

    name: ResourceNameField
    slug: SlugField | None = None
    url: UrlField | None = None
    visibility: Visibility | None = None


class ProjectPatch(StrictPatch):
    """What of a project is to be different; null clears its URL."""

    clearable: ClassVar[frozenset[str]] = frozenset(("url",))

    name: ResourceNameField | SkipJsonSchema[None] = None
    slug: SlugField | SkipJsonSchema[None] = None
    url: UrlField | None = None
    visibility: Visibility | SkipJsonSchema[None] = None


class ProjectKeyBody(Body):
    """A key of a project. ``revoked`` is left out while it is not, ``creator`` when that user is gone."""

    uuid: UuidField
    project: UuidField
    creator: UuidField | None = None
    name: ResourceNameField
    creation: DateTimeField
    expiration: DateTimeField
    revoked: DateTimeField | None = None


class CreatedProjectKeyBody(Body):
    """A new key of a project, with its text for the only time."""

    uuid: UuidField
    project: UuidField
    name: ResourceNameField
    key: Text
    creation: DateTimeField
    expiration: DateTimeField
