"""Manifests as documents: what one names, by the OCI image specification 1.1 and Docker's image manifest version 2.

What is not understood is kept and left alone. What could be read in two ways is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from metalmark.model import Digest, InputError
from metalmark.server.registry_errors import RegistryFault

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

_MANIFESTS = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
_INDEXES = frozenset((OCI_INDEX, DOCKER_LIST))
_FOREIGN = (
    "application/vnd.oci.image.layer.nondistributable.v1.",
    "application/vnd.docker.image.rootfs.foreign.diff.",
)
_FIELDS = frozenset(
    ("schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "artifactType", "digest", "size", "urls")
)
_FOLDED = frozenset(name.lower() for name in _FIELDS)
_DESCRIPTORS_MAX = 20_000
_SIZE_MAX = 2**63 - 1
_TYPE_MAX_LENGTH = 255


@dataclass(kw_only=True)
class ManifestDocument:
    """What of a manifest matters to a registry."""

    media_type: str
    blobs: dict[str, int] = field(default_factory=dict)
    """Sizes of the blobs that have to be there, by digest."""
    children: dict[str, int] = field(default_factory=dict)
    """Sizes of the manifests that an index names, by digest."""
    subject: str | None = None
    """Digest of what it refers to, whether that is there or not."""
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


def parse_manifest(content: bytes, content_type: str | None) -> ManifestDocument:
    """Read a manifest.

    Args:
        content: Its bytes.
        content_type: What the request says that it is, if it does.

    Raises:
        RegistryFault: It is not a manifest of a kind that is known, or can be read in two ways.
    """
    document = _parsed(content)
    media_type = _media_type(document, content_type)
    version = document.get("schemaVersion")
    # 2.0 is the same number, and no integer to many programs.
    if type(version) is not int or version != 2:
        raise _invalid("its schemaVersion is not 2")
    manifest = ManifestDocument(media_type=media_type)
    if media_type in _INDEXES:
        _refuse(document, "config", "layers", what="an index")
        _read_index(manifest, document)
    else:
        _refuse(document, "manifests", what="an image manifest")
        _read_image(manifest, document)
    subject = document.get("subject")
    if subject is not None:
        manifest.subject = _descriptor(subject, "subject")[0]
    manifest.annotations = _annotations(document.get("annotations"))
    return manifest


def _parsed(content: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(content.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"it is not JSON that can be read ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise _invalid("it is not an object")
    _refuse_other_case(document)
    return document


def _refuse_other_case(document: Mapping[str, object]) -> None:
    # Programs whose library takes names in any case would find other layers than the rest.
    for name in document:
        if name.lower() in _FOLDED and name not in _FIELDS:
            raise _invalid(f"{name[:20]!r} is a field in another case")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def _media_type(document: Mapping[str, object], content_type: str | None) -> str:
    said = (content_type or "").partition(";")[0].strip().lower() or None
    own = document.get("mediaType")
    if own is not None and said is not None and said != own:
        raise _invalid("its mediaType is not the request's Content-Type")
    media_type = own if own is not None else said
    if media_type is None:
        media_type = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    if not isinstance(media_type, str) or media_type not in _MANIFESTS | _INDEXES:
        raise _invalid("there is no such kind of manifest here")
    return media_type


def _refuse(document: Mapping[str, object], *names: str, what: str) -> None:
    # A document that is both an image and an index is read as one by some and as the other by the rest.
    for name in names:
        if name in document:
            raise _invalid(f"{what} has no {name}")


def _read_index(manifest: ManifestDocument, document: Mapping[str, object]) -> None:
    for position, entry in enumerate(_list(document, "manifests")):
        digest, size, media_type = _descriptor(entry, f"manifests[{position}]")
        # Caches of builders are indexes of blobs.
        known = media_type in _MANIFESTS | _INDEXES
        _add(manifest.children if known else manifest.blobs, digest, size)
    manifest.artifact_type = _text(document, "artifactType")


def _read_image(manifest: ManifestDocument, document: Mapping[str, object]) -> None:
    digest, size, media_type = _descriptor(document.get("config"), "config")
    _add(manifest.blobs, digest, size)
    for position, entry in enumerate(_list(document, "layers")):
        layer, layer_size, layer_type = _descriptor(entry, f"layers[{position}]")
        if not layer_type.startswith(_FOREIGN):
            _add(manifest.blobs, layer, layer_size)
    manifest.artifact_type = _text(document, "artifactType") or media_type


def _add(found: dict[str, int], digest: str, size: int) -> None:
    if found.setdefault(digest, size) != size:
        raise _invalid(f"{digest} is there with two sizes")


def _list(document: Mapping[str, object], name: str) -> list[object]:
    entries = document.get(name)
    if not isinstance(entries, list):
        raise _invalid(f"its {name} are not a list")
    if len(entries) > _DESCRIPTORS_MAX:
        raise _invalid(f"it has over {_DESCRIPTORS_MAX} {name}")
    return entries


def _descriptor(value: object, name: str) -> tuple[str, int, str]:
    if not isinstance(value, dict):
        raise _invalid(f"its {name} is not a descriptor")
    _refuse_other_case(value)
    digest, size, media_type = value.get("digest"), value.get("size"), value.get("mediaType")
    if not isinstance(media_type, str) or not _is_type(media_type):
        raise _invalid(f"its {name} has no mediaType")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _SIZE_MAX:
        raise _invalid(f"its {name} has no size")
    try:
        return str(Digest.parse(digest if isinstance(digest, str) else "")), size, media_type
    except InputError as error:
        raise _invalid(f"its {name} has no digest") from error


def _text(document: Mapping[str, object], name: str) -> str | None:
    value = document.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _is_type(value):
        raise _invalid(f"its {name} is no media type")
    return value


def _is_type(text: str) -> bool:
    # More than RFC 6838 allows is pushed in earnest; what no database or header takes is not.
    return 0 < len(text) <= _TYPE_MAX_LENGTH and text.isascii() and text.isprintable()


def _annotations(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _invalid("its annotations are not a map of texts")
    return dict(value)


def _invalid(why: str) -> RegistryFault:
    return RegistryFault("MANIFEST_INVALID", 400, f"this manifest cannot be taken: {why}")
