"""Images made of bytes that a test chose, well formed or not."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metalmark.model import Digest

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True, kw_only=True)
class FakeLayer:
    """A layer: the blob as it is stored, and the tar stream that it claims to hold."""

    blob: bytes
    diff_id: Digest
    media_type: str = OCI_LAYER

    @classmethod
    def plain(cls, tar: bytes) -> FakeLayer:
        """Return a layer that is stored as it is."""
        return cls(blob=tar, diff_id=Digest.of(tar))

    @classmethod
    def gzipped(cls, tar: bytes) -> FakeLayer:
        """Return a layer packed with gzip."""
        return cls(blob=gzip.compress(tar, mtime=0), diff_id=Digest.of(tar), media_type=f"{OCI_LAYER}+gzip")


@dataclass(kw_only=True)
class FakeImage:
    """An image in memory: its blobs by digest, and its manifest. Fields of the documents can be replaced."""

    layers: Sequence[FakeLayer] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    """The ``config`` object of the configuration document."""
    architecture: str = "amd64"
    variant: str = ""
    configuration_fields: Mapping[str, object] = field(default_factory=dict)
    manifest_fields: Mapping[str, object] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifest: Digest = field(init=False)

    def __post_init__(self) -> None:
        configuration = {
            "architecture": self.architecture,
            "os": "linux",
            **({"variant": self.variant} if self.variant else {}),
            "config": dict(self.config),
            "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in self.layers]},
            **self.configuration_fields,
        }
        config = self.add(json.dumps(configuration).encode())
        layers = [
            {"mediaType": layer.media_type, "digest": str(self.add(layer.blob)), "size": len(layer.blob)}
            for layer in self.layers
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": str(config), "size": len(self.blobs[config])},
            "layers": layers,
            **self.manifest_fields,
        }
        self.manifest = self.add(json.dumps(manifest).encode())

    def add(self, data: bytes) -> Digest:
        """Add a blob and return its digest."""
        digest = Digest.of(data)
        self.blobs[digest] = data
        return digest

    def descriptor(self, *, tag: str = "", platform: bool = False) -> dict[str, object]:
        """Return what an index says of the manifest."""
        told: dict[str, object] = {
            "mediaType": OCI_MANIFEST,
            "digest": str(self.manifest),
            "size": len(self.blobs[self.manifest]),
        }
        if platform:
            told["platform"] = {"os": "linux", "architecture": self.architecture, "variant": self.variant}
        if tag:
            told["annotations"] = {"org.opencontainers.image.ref.name": tag}
        return told


def index_of(descriptors: Sequence[Mapping[str, object]]) -> bytes:
    """Return an index."""
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(descriptors)}).encode()


def write_layout(
    folder: Path, *images: FakeImage, index: bytes | None = None, blobs: Mapping[Digest, bytes] | None = None
) -> Path:
    """Write an OCI layout.

    Args:
        folder: Where; made when missing.
        images: What goes in; each is listed in ``index.json``.
        index: Another ``index.json``.
        blobs: Blobs in addition.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="ascii")
    (folder / "index.json").write_bytes(index_of([image.descriptor() for image in images]) if index is None else index)
    every = dict(blobs or {})
    for image in images:
        every |= image.blobs
    for digest, data in every.items():
        path = folder / "blobs" / digest.algorithm / digest.hex
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Return a tar stream of regular files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()
