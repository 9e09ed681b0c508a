"""Where a packed image is put: an OCI layout folder, or a tar file that Docker reads too."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import Digest, ImageNotFound, InputError, NotAnImage, Platform
from metalmark.oci import media
from metalmark.oci.bundle import FolderBundle, read_file
from metalmark.oci.documents import Node
from metalmark.oci.layout import check_version
from metalmark.oci.manifest import MAX_DOCUMENT_BYTES, REF_NAME
from metalmark.system import published

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_MAX_MANIFESTS = 4096


@dataclass(frozen=True, kw_only=True)
class PackedBlobs:
    """The parts of one image, ready to be put somewhere."""

    tag: str
    platform: Platform
    manifest: Digest
    config: Digest
    layer: Digest
    documents: Mapping[Digest, bytes]
    layer_file: Path
    layer_bytes: int


def write_layout(target: Path, blobs: PackedBlobs) -> None:
    """Put an image into a layout folder, made when missing; another image of the same tag loses the tag.

    Raises:
        InputError: The target exists and is no layout.
    """
    known = _known_manifests(target, blobs.tag)
    folder = target / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    for digest, data in blobs.documents.items():
        with published(folder / digest.hex, mode=0o644) as stream:
            stream.write(data)
    _place_layer(blobs.layer_file, folder / blobs.layer.hex)
    with published(target / "oci-layout", mode=0o644) as stream:
        stream.write(_LAYOUT)
    with published(target / "index.json", mode=0o644) as stream:
        stream.write(_index([*known, _descriptor(blobs)]))


def write_archive(target: Path, blobs: PackedBlobs) -> None:
    """Write an image as a tar file: an OCI layout with the ``manifest.json`` that ``docker load`` wants.

    Raises:
        InputError: The target is a folder.
    """
    if target.is_dir():
        raise InputError("-t", str(target), "it is a folder", hint="name a file, or use -o for a layout folder")
    repository = blobs.tag if ":" in blobs.tag else f"metalmark/image:{blobs.tag}"
    docker = [
        {
            "Config": f"blobs/sha256/{blobs.config.hex}",
            "RepoTags": [repository] if _is_repository(repository) else None,
            "Layers": [f"blobs/sha256/{blobs.layer.hex}"],
        }
    ]
    files = {
        "oci-layout": _LAYOUT,
        "index.json": _index([_descriptor(blobs)]),
        "manifest.json": _json(docker),
        **{f"blobs/sha256/{digest.hex}": data for digest, data in blobs.documents.items()},
    }
    with (
        published(target, mode=0o644) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in ("blobs", "blobs/sha256"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name in sorted(files):
            tar.addfile(_file(name, len(files[name])), io.BytesIO(files[name]))
        with blobs.layer_file.open("rb") as layer:
            tar.addfile(_file(f"blobs/sha256/{blobs.layer.hex}", blobs.layer_bytes), layer)


def _place_layer(layer: Path, target: Path) -> None:
    """Give the finished layer its name without writing it a second time, where the file system has hard links."""
    with layer.open("rb") as stream:
        os.fchmod(stream.fileno(), 0o644)
        os.fsync(stream.fileno())
    try:
        target.unlink(missing_ok=True)
        target.hardlink_to(layer)
    except OSError:
        with published(target, mode=0o644) as stream, layer.open("rb") as content:
            shutil.copyfileobj(content, stream, 1024 * 1024)


def _known_manifests(target: Path, tag: str) -> list[object]:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return []
    wrong = InputError(
        "-o", str(target), "it exists and is not an OCI layout", hint="choose a new folder, or -t for an archive"
    )
    if not target.is_dir():
        raise wrong
    bundle = FolderBundle(target)
    try:
        if not bundle.has("oci-layout") or not bundle.has("index.json"):
            raise wrong
        check_version(bundle)
        index = Node.parse(read_file(bundle, "index.json", MAX_DOCUMENT_BYTES), what=f"index.json of {target}")
        kept = [
            item.value
            for item in index.get("manifests").items(_MAX_MANIFESTS)
            if item.get("annotations").mapping(_MAX_MANIFESTS).get(REF_NAME) != tag
        ]
    except (NotAnImage, ImageNotFound) as error:
        raise wrong from error
    finally:
        bundle.close()
    return kept


def _descriptor(blobs: PackedBlobs) -> dict[str, object]:
    platform = blobs.platform
    told = {"os": platform.os, "architecture": platform.architecture}
    return {
        "mediaType": media.OCI_MANIFEST,
        "digest": str(blobs.manifest),
        "size": len(blobs.documents[blobs.manifest]),
        "platform": {**told, "variant": platform.variant} if platform.variant else told,
        "annotations": {REF_NAME: blobs.tag},
    }


def _index(manifests: list[object]) -> bytes:
    return _json({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": manifests})


def _file(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _is_repository(text: str) -> bool:
    name, _, tag = text.rpartition(":")
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789._-/")
    return bool(name) and set(name) <= allowed and name[-1].isalnum() and bool(tag)
