"""Images as text for people and as JSON for programs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from metalmark.model import format_bytes
from metalmark.oci import CachedImage, CachedRootfs, Collected, ImageDescription, PackedImage

Rows = Sequence[Sequence[str]]
_DIGEST_SHOWN = 19
_UNSAFE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def packed_json(packed: PackedImage) -> dict[str, object]:
    """Return what ``image pack --json`` prints."""
    return {
        "path": str(packed.path),
        "tag": packed.tag,
        "digest": str(packed.digest),
        "layer": {
            "digest": str(packed.layer_digest),
            "diff_id": str(packed.diff_id),
            "size_bytes": packed.layer_bytes,
            "entries": packed.entries,
        },
    }


def packed_text(packed: PackedImage) -> str:
    """Return what ``image pack`` prints: the digest alone is the first word, for scripts that cut."""
    return (
        f"{packed.digest} {_safe(str(packed.path))}:{packed.tag}"
        f" ({packed.entries} entries, {format_bytes(packed.layer_bytes)})\n"
    )


def description_json(found: ImageDescription) -> dict[str, object]:
    """Return what ``image inspect --json`` prints."""
    config = found.config
    return {
        "source": str(found.source),
        "digest": str(found.digest),
        "index_digest": None if found.index_digest is None else str(found.index_digest),
        "platform": str(found.platform),
        "platforms": [str(platform) for platform in found.platforms],
        "created": found.created,
        "size_bytes": found.size_bytes,
        "config": {
            "entrypoint": list(config.entrypoint),
            "cmd": list(config.cmd),
            "env": list(config.env),
            "workdir": config.workdir,
            "user": config.user,
            "labels": dict(config.labels),
        },
        "layers": [
            {
                "digest": str(layer.digest),
                "diff_id": str(layer.diff_id),
                "media_type": layer.media_type,
                "size_bytes": layer.size_bytes,
            }
            for layer in found.layers
        ],
    }


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def description_text(found: ImageDescription) -> str:
    """Return what ``image inspect`` prints."""
    config = found.config
    rows = [
        ("image", str(found.source)),
        ("digest", str(found.digest)),
        ("index", "" if found.index_digest is None else str(found.index_digest)),
        ("platform", str(found.platform)),
        ("offers", ", ".join(map(str, found.platforms)) if len(found.platforms) > 1 else ""),
        ("created", found.created),
        ("entrypoint", shlex.join(config.entrypoint)),
        ("cmd", shlex.join(config.cmd)),
        ("workdir", config.workdir),
        ("user", config.user),
        *(("env", entry) for entry in config.env),
        *(("label", f"{name}={value}") for name, value in sorted(config.labels.items())),
        ("size", f"{format_bytes(found.size_bytes)} in {_layers(len(found.layers))}"),
    ]
    layers = [
        ("layer", "size", "media type"),
        *((str(layer.digest), format_bytes(layer.size_bytes), layer.media_type) for layer in found.layers),
    ]
    return _aligned([row for row in rows if row[1]]) + ("\n" + _aligned(layers) if found.layers else "")


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the cache holds."""

    images: tuple[CachedImage, ...]
    stored_bytes: int
    """Of all blobs; layers that images share count once."""
    rootfs: tuple[CachedRootfs, ...]


@dataclass(frozen=True, kw_only=True)
class CleanUp:
    """What a clean-up did, or would do."""

    dry_run: bool
    images: Collected
    rootfs: tuple[CachedRootfs, ...]
    rootfs_before: tuple[CachedRootfs, ...]

    @property
    def rootfs_kept(self) -> tuple[CachedRootfs, ...]:
        """The root file systems that stay."""
        gone = {entry.path for entry in self.rootfs}
        return tuple(entry for entry in self.rootfs_before if entry.path not in gone)


def would_go(entries: Sequence[CachedRootfs], max_bytes: int) -> tuple[CachedRootfs, ...]:
    """Return which root file systems, least recently used first, a clean-up would remove."""
    total = sum(entry.size_bytes for entry in entries)
    gone: list[CachedRootfs] = []
    for entry in entries:
        if total > max_bytes and not entry.in_use:
            total -= entry.size_bytes
            gone.append(entry)
    return tuple(gone)


def held_json(held: Held) -> dict[str, object]:
    """Return what ``image list --json`` prints."""
    return {
        "stored_bytes": held.stored_bytes,
        "images": [_cached_json(image) for image in held.images],
        "rootfs_bytes": _sum(held.rootfs),
        "rootfs": [_rootfs_json(entry) for entry in held.rootfs],
    }


def held_text(held: Held) -> str:
    """Return what ``image list`` prints."""
    if not held.images and not held.rootfs:
        return "the cache is empty\n"
    images = [
        ("digest", "platform", "size", "layers", "last used", "names"),
        *(_cached_row(image) for image in held.images),
    ]
    files = [("root file system", "size", "last used", ""), *(_rootfs_row(entry) for entry in held.rootfs)]
    text = _aligned(images) + "\n" if held.images else ""
    text += _aligned(files) + "\n" if held.rootfs else ""
    return (
        f"{text}{len(held.images)} images, {format_bytes(held.stored_bytes)};"
        f" {len(held.rootfs)} root file systems, {format_bytes(_sum(held.rootfs))}\n"
    )


def clean_up_json(done: CleanUp) -> dict[str, object]:
    """Return what ``image gc --json`` prints."""
    images = done.images
    return {
        "dry_run": done.dry_run,
        "images": {
            "removed": [_cached_json(image) for image in images.removed],
            "freed_bytes": images.freed_bytes,
            "kept_bytes": images.kept_bytes,
            "in_use": images.in_use,
        },
        "rootfs": {
            "removed": [_rootfs_json(entry) for entry in done.rootfs],
            "freed_bytes": _sum(done.rootfs),
            "kept_bytes": _sum(done.rootfs_kept),
            "in_use": sum(entry.in_use for entry in done.rootfs_before),
        },
    }


def clean_up_text(done: CleanUp) -> str:
    """Return what ``image gc`` prints."""
    would = "would remove" if done.dry_run else "removed"
    images = done.images
    lines = [f"{would} {image.record.digest} {_names(image)}" for image in images.removed]
    lines += [f"{would} {entry.path.name}" for entry in done.rootfs]
    lines += [
        _summary("images", would, len(images.removed), images.freed_bytes, images.kept_bytes, images.in_use),
        _summary(
            "root file systems",
            would,
            len(done.rootfs),
            _sum(done.rootfs),
            _sum(done.rootfs_kept),
            sum(entry.in_use for entry in done.rootfs_before),
        ),
    ]
    return "".join(f"{_safe(line)}\n" for line in lines)


def _summary(noun: str, would: str, count: int, freed: int, kept: int, in_use: int) -> str:  # noqa: PLR0917 - a row
    return f"{noun}: {would} {count}, {format_bytes(freed)}; {format_bytes(kept)} stay, {in_use} in use"


def _sum(entries: Sequence[CachedRootfs]) -> int:
    return sum(entry.size_bytes for entry in entries)


def _rootfs_json(entry: CachedRootfs) -> dict[str, object]:
    return {
        "name": entry.path.name,
        "size_bytes": entry.size_bytes,
        "last_used": datetime.fromtimestamp(entry.last_used_s, UTC).isoformat(timespec="seconds"),
        "in_use": entry.in_use,
    }


def _rootfs_row(entry: CachedRootfs) -> tuple[str, ...]:
    used = datetime.fromtimestamp(entry.last_used_s, UTC).astimezone()
    return (entry.path.name, format_bytes(entry.size_bytes), f"{used:%Y-%m-%d %H:%M}", "in use" if entry.in_use else "")


def _cached_json(image: CachedImage) -> dict[str, object]:
    record = image.record
    return {
        "digest": str(record.digest),
        "platform": str(record.platform),
        "size_bytes": record.size_bytes,
        "layers": len(record.layers),
        "last_used": datetime.fromtimestamp(image.last_used_s, UTC).isoformat(timespec="seconds"),
        "references": list(record.references),
    }


def _cached_row(image: CachedImage) -> tuple[str, ...]:
    record = image.record
    used = datetime.fromtimestamp(image.last_used_s, UTC).astimezone()
    return (
        str(record.digest)[:_DIGEST_SHOWN],
        str(record.platform),
        format_bytes(record.size_bytes),
        str(len(record.layers)),
        f"{used:%Y-%m-%d %H:%M}",
        _names(image),
    )


def _names(image: CachedImage) -> str:
    references = image.record.references
    more = f" (+{len(references) - 2})" if len(references) > 2 else ""
    return " ".join(references[:2]) + more


def _aligned(rows: Rows) -> str:
    clean = [[_safe(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in clean
    )


def _safe(text: str) -> str:
    """Names and values come from images: no escape sequence of theirs reaches the terminal."""
    return text.translate(_UNSAFE)
