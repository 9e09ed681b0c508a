"""Media types of the OCI image specification 1.1 and of Docker's image manifest version 2, schema 2."""

from __future__ import annotations

from enum import StrEnum

from metalmark.model import UnsupportedImage

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

MANIFESTS = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
INDEXES = frozenset((OCI_INDEX, DOCKER_LIST))
CONFIGS = frozenset((OCI_CONFIG, DOCKER_CONFIG))
ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
"""What a registry is asked for, most wanted first."""

_LAYERS = frozenset(
    (
        OCI_LAYER,
        f"{OCI_LAYER}+gzip",
        f"{OCI_LAYER}+zstd",
        DOCKER_LAYER,
        f"{DOCKER_LAYER}.gzip",
        f"{DOCKER_LAYER}.zstd",
    )
)
_FOREIGN = ("application/vnd.oci.image.layer.nondistributable.", "application/vnd.docker.image.rootfs.foreign.")


class Compression(StrEnum):
    """How the tar stream of a layer is packed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"

    @classmethod
    def of(cls, start: bytes) -> Compression:
        """Tell from the first four bytes of a blob. Media types are wrong too often to go by."""
        if start[:2] == b"\x1f\x8b":
            return cls.GZIP
        if start[:4] == b"\x28\xb5\x2f\xfd" or (start[1:4] == b"\x2a\x4d\x18" and start[:1] and start[0] >> 4 == 5):
            return cls.ZSTD
        return cls.NONE


def layer_media_type(compression: Compression) -> str:
    """Return OCI's media type for a layer packed so."""
    return OCI_LAYER if compression is Compression.NONE else f"{OCI_LAYER}+{compression}"


def check_layer(media_type: str, layer: str) -> None:
    """Refuse a layer that could not be run.

    Args:
        media_type: Its media type.
        layer: Its digest, for the error.

    Raises:
        UnsupportedImage: A foreign or encrypted layer, or something that is no layer at all.
    """
    if media_type.startswith(_FOREIGN):
        raise UnsupportedImage(
            f"layer {layer} is foreign ({media_type})",
            why="its content is not kept with the image but at an address that its maker chose, which is never fetched",
            hint="rebuild the image on a base whose layers are in the registry",
        )
    if media_type.endswith("+encrypted"):
        raise UnsupportedImage(
            f"layer {layer} is encrypted ({media_type})",
            why="Metalmark holds no keys",
            hint="decrypt it first: skopeo copy --decryption-key KEY …",
        )
    if media_type not in _LAYERS:
        raise UnsupportedImage(
            f"layer {layer} has the media type {media_type!r}",
            why="only tar layers, plain or packed with gzip or zstd, make a root file system",
            hint="check that this is a container image and not another kind of artifact",
        )
