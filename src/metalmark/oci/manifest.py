"""Manifests and indexes: OCI image specification 1.1, and Docker's manifest version 2, schema 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from metalmark.model import MIB, Digest, NotAnImage, Platform, UnsupportedImage
from metalmark.oci import media
from metalmark.oci.documents import Node, shown

MAX_DOCUMENT_BYTES = 4 * MIB
"""Of a manifest, index or configuration; registries accept no larger manifests."""
_MAX_LAYERS = 1024
_MAX_MANIFESTS = 4096
_MAX_ANNOTATIONS = 4096
REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """What a document says of a blob: type, digest and size."""

    media_type: str
    digest: Digest
    size_bytes: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The tag and name that an index gives it."""
        return tuple(name for key in (REF_NAME, _IMAGE_NAME) if (name := self.annotations.get(key)))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One image for one platform."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, kw_only=True)
class Index:
    """Several manifests or further indexes to choose from."""

    media_type: str
    manifests: tuple[Descriptor, ...]


def read_document(data: bytes, *, media_type: str = "", what: str) -> Manifest | Index:
    """Read a manifest or an index.

    Args:
        data: Its bytes.
        media_type: What the place it came from says it is; empty when that says nothing.
        what: The document, for errors.

    Raises:
        NotAnImage: Malformed, or an artifact that is no image.
        UnsupportedImage: A format or a layer that is refused.
    """
    top = Node.parse(data, what=what)
    own = top.get("mediaType").text("")
    announced = media_type.partition(";")[0].strip().lower()
    known = media.MANIFESTS | media.INDEXES
    if own and announced in known and own != announced:
        raise NotAnImage(
            f"{what} says it is {shown(own)} and was announced as {announced}",
            why="one digest must not mean two images",
        )
    kind = own or (announced if announced in known else "")
    if top.has("schemaVersion") and top.get("schemaVersion").value == 1:
        raise UnsupportedImage(
            f"{what} is a Docker schema 1 manifest",
            why="that format was withdrawn and cannot be verified",
            hint="push the image again with a current tool",
        )
    if top.has("manifests") and (top.has("layers") or top.has("config")):
        raise NotAnImage(f"{what} has both manifests and layers", why="one digest must not mean two images")
    if kind in media.INDEXES or (not kind and top.has("manifests")):
        return _index(top, kind or media.OCI_INDEX)
    if kind in media.MANIFESTS or (not kind and top.has("config")):
        return _manifest(top, kind or media.OCI_MANIFEST)
    raise NotAnImage(
        f"{what} is neither an image manifest nor an index" + (f" but {shown(kind)}" if kind else ""),
        hint="check the reference",
    )


def _index(top: Node, media_type: str) -> Index:
    return Index(
        media_type=media_type, manifests=tuple(_descriptor(item) for item in top.get("manifests").items(_MAX_MANIFESTS))
    )


def _manifest(top: Node, media_type: str) -> Manifest:
    config = _descriptor(top.get("config"))
    if config.media_type not in media.CONFIGS:
        raise NotAnImage(
            f"{top.what} is an artifact of type {shown(top.get('artifactType').text('') or config.media_type)}",
            why="it is not a container image",
        )
    layers = tuple(_descriptor(item) for item in top.get("layers").items(_MAX_LAYERS))
    for layer in layers:
        media.check_layer(layer.media_type, str(layer.digest))
    if config.size_bytes > MAX_DOCUMENT_BYTES:
        raise NotAnImage(
            f"{top.what}: config.size is {config.size_bytes}", why=f"at most {MAX_DOCUMENT_BYTES} are read"
        )
    return Manifest(media_type=media_type, config=config, layers=layers)


def _descriptor(node: Node) -> Descriptor:
    return Descriptor(
        media_type=node.get("mediaType").text(),
        digest=node.get("digest").digest(),
        size_bytes=node.get("size").size(),
        platform=_platform(node.get("platform")) if node.has("platform") else None,
        annotations=node.get("annotations").mapping(_MAX_ANNOTATIONS),
    )


def _platform(node: Node) -> Platform:
    return Platform(node.get("os").text(""), node.get("architecture").text(""), node.get("variant").text(""))
