from __future__ import annotations

import json
from pathlib import Path

from metalmark.cli.image_display import CleanUp, Held, clean_up_json, clean_up_text, held_json, held_text, would_go
from metalmark.model import Digest, ImageConfig, Platform
from metalmark.oci import CachedImage, CachedRootfs, Collected
from metalmark.oci.record import ImageRecord


def rootfs(name: str, size: int, *, in_use: bool = False) -> CachedRootfs:
    return CachedRootfs(path=Path(name), size_bytes=size, last_used_s=0, in_use=in_use)


def image(*references: str) -> CachedImage:
    record = ImageRecord(
        digest=Digest.of(b"m"), platform=Platform("linux", "amd64"), config=ImageConfig(), layers=(), documents=(),
        documents_bytes=2048, references=references,
    )  # fmt: skip
    return CachedImage(record=record, last_used_s=86400.0, files=())


def test_a_dry_run_spares_what_is_in_use_and_stops_when_the_rest_fits() -> None:
    entries = (rootfs("a", 10, in_use=True), rootfs("b", 10), rootfs("c", 10), rootfs("d", 10))
    assert [entry.path.name for entry in would_go(entries, 20)] == ["b", "c"]
    assert [entry.path.name for entry in would_go(entries, 0)] == ["b", "c", "d"]
    assert would_go(entries, 40) == ()


def test_names_are_few_and_harmless() -> None:
    held = Held(images=(image("docker://h.io/a:\x1b[2J", "two", "three", "four"),), stored_bytes=2048, rootfs=())
    text = held_text(held)
    assert "\x1b" not in text
    assert "two (+2)" in text
    assert text.endswith("1 images, 2.00 KiB; 0 root file systems, 0 B\n")
    (entry,) = json.loads(json.dumps(held_json(held)))["images"]
    assert entry["last_used"] == "1970-01-02T00:00:00+00:00"
    assert entry["references"][1:] == ["two", "three", "four"]


def test_a_clean_up_adds_up() -> None:
    before = (rootfs("a", 10), rootfs("b", 30, in_use=True))
    images = Collected(removed=(image("r"),), freed_bytes=2048, kept_bytes=0, in_use=0)
    done = CleanUp(dry_run=True, images=images, rootfs=before[:1], rootfs_before=before)
    told = clean_up_json(done)["rootfs"]
    assert isinstance(told, dict)
    assert (told["freed_bytes"], told["kept_bytes"], told["in_use"]) == (10, 30, 1)
    assert clean_up_text(done).splitlines() == [
        f"would remove {Digest.of(b'm')} r",
        "would remove a",
        "images: would remove 1, 2.00 KiB; 0 B stay, 0 in use",
        "root file systems: would remove 1, 10 B; 30 B stay, 1 in use",
    ]
