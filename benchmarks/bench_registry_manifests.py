"""Manifests to and from the registry beside Debian's docker-registry, in turns: pushes by tag, reads by tag and digest.

The images share a configuration and two layers, which are there before. Registry and client share the processors.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial

from figures import Figures
from registry_rig import Beside, Content, Contents, Line, Registry, arguments, in_parallel, standing_registries

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def manifests_of(contents: Contents, registry: Registry, turn: int, count: int) -> list[bytes]:
    """Push what images consist of, and return manifests of it, no two the same."""
    parts = [(contents.new(2048), CONFIG), (contents.new(4096), LAYER), (contents.new(4096), LAYER)]
    with Line(registry) as line:
        described = [_described(line, content, kind) for content, kind in parts]
    image = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
    return [json.dumps({**image, "annotations": {"number": f"{turn}/{number}"}}).encode() for number in range(count)]


def _described(line: Line, content: Content, kind: str) -> dict[str, object]:
    line.push(content, content.digest)
    return {"mediaType": kind, "digest": content.digest, "size": content.size_bytes}


def measure(beside: Beside, registry: Registry, manifests: list[bytes], turn: int, lines: int) -> None:
    """Push manifests and read them, over some connections."""
    place = f"/v2/{registry.repository}/manifests"
    digests = [f"sha256:{hashlib.sha256(manifest).hexdigest()}" for manifest in manifests]
    tags = [f"t{turn}-{lines}-{number}" for number in range(len(manifests))]
    over = "one connection" if lines == 1 else f"{lines} connections"
    pushes = [
        partial(Line.ask, method="PUT", path=f"{place}/{tag}", content=manifest, kind=MANIFEST, expect=201)
        for tag, manifest in zip(tags, manifests, strict=True)
    ]
    # The peer tells other media types only to who asks for them.
    reads = {
        "push": pushes,
        "HEAD by tag": [partial(_read, method="HEAD", path=f"{place}/{tag}") for tag in tags],
        "GET by tag": [partial(_read, method="GET", path=f"{place}/{tag}") for tag in tags],
        "GET by digest": [partial(_read, method="GET", path=f"{place}/{digest}") for digest in digests],
    }
    for what, works in reads.items():
        work = partial(in_parallel, registry, lines, works)
        beside.time(registry, f"{what}, {over}", work, len(manifests), "a second")


def _read(line: Line, method: str, path: str) -> None:
    line.ask(method, path, expect=200, accept=MANIFEST)


def main() -> None:
    options = arguments(__doc__)
    rounds, count = options.rounds or (1 if options.quick else 3), 20 if options.quick else 500
    figures, contents = Figures("registry_manifests", of="registry"), Contents()
    with standing_registries(options) as registries:
        beside = Beside(figures, registries)
        for turn in range(rounds):
            for lines in (1, 4):
                for registry in beside.turn(turn):
                    manifests = manifests_of(contents, registry, turn, count)
                    measure(beside, registry, manifests, turn, lines)
        beside.tell()


if __name__ == "__main__":
    main()
