"""Layers to and from the registry beside Debian's docker-registry, in turns: large ones in MB/s, small ones a second.

Every layer is new to the registry. A push is HEAD, POST, PATCH and PUT, from the first byte to the answer that it is
stored. The floor is the same bytes hashed, written and synced by one program. Registry and client share the processors.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from figures import Figures
from registry_rig import Beside, Content, Contents, Line, Registry, arguments, in_parallel, standing_registries

from metalmark.model import MIB

SMALL_BYTES = 4096
LINES = 4


def floor(content: Content) -> float:
    """Hash, write and sync, and return how many seconds that takes."""
    with tempfile.TemporaryFile() as stream:
        began_s = time.monotonic()
        hasher = hashlib.sha256()
        for piece in content.pieces():
            hasher.update(piece)
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())
        return time.monotonic() - began_s


def large(beside: Beside, registry: Registry, content: Content) -> None:
    """Push a layer, and pull it."""
    digest, name = content.digest, f"{content.size_bytes // MIB} MiB"
    with Line(registry) as line:
        for what, work in (("push", partial(line.push, content, digest)), ("pull", partial(line.pull, digest))):
            beside.time(registry, f"{what} of {name}", work, content.size_bytes / 1e6, "MB/s")


def small(beside: Beside, registry: Registry, contents: list[Content], lines: int) -> None:
    """Push many layers over some connections, and pull them."""
    named = [(content, content.digest) for content in contents]
    over = "one connection" if lines == 1 else f"{lines} connections"
    pushes = [partial(Line.push, content=content, digest=digest) for content, digest in named]
    pulls = [partial(Line.pull, digest=digest) for _, digest in named]
    for what, works in (("push", pushes), ("pull", pulls)):
        name = f"{what} of {len(contents)} of 4 KiB, {over}"
        beside.time(registry, name, partial(in_parallel, registry, lines, works), len(contents), "a second")


def main() -> None:
    options = arguments(__doc__)
    rounds = options.rounds or (1 if options.quick else 5)
    size, count = (16 * MIB, 30) if options.quick else (512 * MIB, 1000)
    figures, contents = Figures("registry_blobs", of="registry"), Contents()
    with standing_registries(options) as registries:
        beside, floors = Beside(figures, registries), []
        for turn in range(rounds):
            floors.append(floor(contents.new(size)))
            for registry in beside.turn(turn):
                large(beside, registry, contents.new(size))
        for turn in range(max(1, rounds // 2)):
            for lines in (1, LINES):
                for registry in beside.turn(turn):
                    small(beside, registry, [contents.new(SMALL_BYTES) for _ in range(count)], lines)
        rate = round(size / 1e6 / statistics.median(floors), 1)
        figures.row("floor", "hashed, written and synced", n=rounds, median=rate, unit="MB/s")
        beside.tell()
    print(f"files of {Path(tempfile.gettempdir())}")


if __name__ == "__main__":
    main()
