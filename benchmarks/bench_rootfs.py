#!/usr/bin/env python3
"""From an image to its root file system, against ``umoci unpack`` and ``mksquashfs`` with the same options.

Series, in turn, each in an empty folder: ``build`` makes the squashfs of layers that are in the cache; ``pull+build``
starts from the OCI layout and verifies every blob and diff_id first; ``umoci`` unpacks that layout, ``mksquashfs``
packs what umoci made; ``inflate`` only decompresses the layers (``gzip -dc``). The image is a Debian root that
mmdebstrap makes once, with a small layer over it; --quick takes a made-up one of 20 MB. Needs root: umoci keeps owners
only then.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from metalmark.model import GIB, Platform, RootfsMode
from metalmark.oci import ImageCache, RegistryAccess, ResolvedImage, open_rootfs, parse_source, pull
from metalmark.testing.images import FakeImage, FakeLayer, index_of, write_layout
from metalmark.testing.layers import END, entry, folder

OPTIONS = ("-noI", "-noD", "-noF", "-noX", "-no-fragments", "-no-duplicates", "-noappend", "-no-recovery")
QUIET = ("-quiet", "-no-progress", "-mkfs-time", "0", "-mem", "256M")
MIRROR = "http://deb.debian.org/debian"
PACKAGES = "python3,perl,git,ca-certificates"
KEPT = Path(__file__).parents[1] / ".cache" / "bench" / "debian-root.tar"


def debian_root() -> bytes:
    """Return the tar stream of a Debian root; it is made once and kept."""
    if not KEPT.exists():
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        partial = KEPT.with_suffix(".partial.tar")
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(partial), MIRROR]
        subprocess.run(argv, check=True)
        partial.rename(KEPT)
    return KEPT.read_bytes()


def made_up_root() -> bytes:
    """Return the tar stream of two thousand files."""
    chance = random.Random(1)
    parts = [folder(b"d%d" % n) for n in range(20)]
    parts += [entry(b"d%d/f%d" % (n % 20, n), chance.randbytes(5000) + bytes(5000)) for n in range(2000)]
    return b"".join(parts) + END


def make_layout(place: Path, lower: bytes) -> Path:
    """Write an image of that root and a small layer on top of it."""
    upper = folder(b"opt") + entry(b"opt/bench", b"#!/bin/sh\nexit 0\n", mode=0o755) + entry(b"etc/.wh.motd") + END
    layers = [
        FakeLayer(blob=gzip.compress(tar, 6, mtime=0), diff_id=plain.diff_id, media_type=f"{plain.media_type}+gzip")
        for tar in (lower, upper)
        for plain in (FakeLayer.plain(tar),)
    ]
    image = FakeImage(layers=layers, architecture=Platform.of_machine(os.uname().machine).architecture)
    return write_layout(place, index=index_of([image.descriptor(tag="t")]), blobs=image.blobs)


async def pulled(layout: Path, cache: ImageCache) -> ResolvedImage:
    access = RegistryAccess(environment={})
    platform = Platform.of_machine(os.uname().machine)
    return await pull(parse_source(f"oci:{layout}"), cache=cache, platform=platform, access=access)


async def build(image: ResolvedImage, cache: ImageCache) -> None:
    async with open_rootfs(image, cache=cache, mode=RootfsMode.OVERLAY, disk_bytes=GIB) as rootfs:
        assert not rootfs.cached


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def one_round(layout: Path, place: Path) -> dict[str, float]:
    """Take every series once."""
    took = {}
    with ImageCache(place / "ours") as cache:
        image = anyio.run(pulled, layout, cache)
        took["build"] = timed(lambda: anyio.run(build, image, cache))

    async def pull_and_build() -> None:
        with ImageCache(place / "whole") as other:
            await build(await pulled(layout, other), other)

    bundle, packed = place / "bundle", place / "peer.squashfs"
    took["umoci"] = timed(
        lambda: subprocess.run(["umoci", "unpack", "--image", f"{layout}:t", bundle], check=True, capture_output=True)
    )
    took["mksquashfs"] = timed(
        lambda: subprocess.run(["mksquashfs", bundle / "rootfs", packed, *OPTIONS, *QUIET], check=True)
    )
    took["pull+build"] = timed(lambda: anyio.run(pull_and_build))
    took["inflate"] = timed(lambda: [_inflate(layer.path) for layer in image.layers])
    return took


def _inflate(path: Path) -> None:
    subprocess.run(["gzip", "-dc"], stdin=path.open("rb"), stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small image, a few rounds")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    quick = options.quick
    if os.geteuid() != 0:
        print("skipped: it needs root, for umoci keeps owners only then")
        return
    rounds = 2 if quick else options.rounds
    with tempfile.TemporaryDirectory(prefix="metalmark-bench-") as name:
        root = made_up_root() if quick else debian_root()
        layout = make_layout(Path(name) / "layout", root)
        series = []
        for number in range(rounds):
            place = Path(name) / str(number)
            place.mkdir()
            series.append(one_round(layout, place))
            shutil.rmtree(place)
    show(series, len(root))


def show(series: list[dict[str, float]], size: int) -> None:
    print(f"image of {size / 1e6:.0f} MB unpacked, {len(series)} rounds, seconds")
    medians = {name: statistics.median(took[name] for took in series) for name in series[0]}
    for name, median in medians.items():
        print(f"  {name:12} median {median:6.2f}   " + " ".join(f"{took[name]:.2f}" for took in series))
    peer = medians["umoci"] + medians["mksquashfs"]
    print(f"build      / (umoci + mksquashfs) = {medians['build'] / peer:.2f}")
    print(f"pull+build / (umoci + mksquashfs) = {medians['pull+build'] / peer:.2f}")


if __name__ == "__main__":
    main()
