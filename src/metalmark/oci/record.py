"""What the cache remembers of an image whose every part is in it and verified: all that a further run needs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metalmark.model import Digest, ImageConfig, InputError, Platform
from metalmark.oci.image import LayerBlob, ResolvedImage
from metalmark.oci.media import Compression

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """One layer: see `LayerBlob`."""

    digest: Digest
    media_type: str
    size_bytes: int
    diff_id: Digest
    compression: Compression


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image for one platform."""

    digest: Digest
    """Of its manifest."""
    platform: Platform
    config: ImageConfig
    layers: tuple[LayerRecord, ...]
    documents: tuple[Digest, ...]
    """Of the indexes, the manifest and the configuration that led here."""
    documents_bytes: int
    references: tuple[str, ...] = field(default=())
    """Under which names it was pulled, newest first."""

    @property
    def blobs(self) -> frozenset[Digest]:
        """Everything in the cache that this image needs."""
        return frozenset((*self.documents, *(layer.digest for layer in self.layers)))

    @property
    def size_bytes(self) -> int:
        """Bytes of its blobs, each counted once."""
        return self.documents_bytes + sum({layer.digest: layer.size_bytes for layer in self.layers}.values())

    def resolved(self, reference: str, blobs: Path, *, cached: bool) -> ResolvedImage:
        """Return the image with the paths of its layers below a folder of blobs."""
        return ResolvedImage(
            reference=reference,
            digest=self.digest,
            platform=self.platform,
            config=self.config,
            layers=tuple(
                LayerBlob(
                    digest=layer.digest,
                    media_type=layer.media_type,
                    size_bytes=layer.size_bytes,
                    diff_id=layer.diff_id,
                    compression=layer.compression,
                    path=blobs / layer.digest.algorithm / layer.digest.hex,
                )
                for layer in self.layers
            ),
            cached=cached,
        )

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        config = self.config
        return json.dumps(
            {
                "format": _FORMAT,
                "digest": str(self.digest),
                "platform": str(self.platform),
                "references": self.references,
                "config": {
                    "entrypoint": config.entrypoint,
                    "cmd": config.cmd,
                    "env": config.env,
                    "workdir": config.workdir,
                    "user": config.user,
                    "labels": dict(config.labels),
                },
                "documents": [str(digest) for digest in self.documents],
                "documents_bytes": self.documents_bytes,
                "layers": [
                    {
                        "digest": str(layer.digest),
                        "media_type": layer.media_type,
                        "size_bytes": layer.size_bytes,
                        "diff_id": str(layer.diff_id),
                        "compression": str(layer.compression),
                    }
                    for layer in self.layers
                ],
            },
            indent=1,
        ).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ImageRecord | None:
        """Read what `to_json` wrote; None when it is of another version or damaged, which means: pull again."""
        try:
            fields: dict[str, Any] = json.loads(data)
            return None if fields["format"] != _FORMAT else cls._of(fields)
        except (ValueError, LookupError, TypeError, AttributeError, InputError):
            return None

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> ImageRecord:
        config = fields["config"]
        return cls(
            digest=Digest.parse(fields["digest"]),
            platform=Platform(*fields["platform"].split("/")),
            references=tuple(fields["references"]),
            config=ImageConfig(
                entrypoint=tuple(config["entrypoint"]),
                cmd=tuple(config["cmd"]),
                env=tuple(config["env"]),
                workdir=config["workdir"],
                user=config["user"],
                labels=config["labels"],
            ),
            documents=tuple(map(Digest.parse, fields["documents"])),
            documents_bytes=fields["documents_bytes"],
            layers=tuple(
                LayerRecord(
                    digest=Digest.parse(layer["digest"]),
                    media_type=layer["media_type"],
                    size_bytes=layer["size_bytes"],
                    diff_id=Digest.parse(layer["diff_id"]),
                    compression=Compression(layer["compression"]),
                )
                for layer in fields["layers"]
            ),
        )
