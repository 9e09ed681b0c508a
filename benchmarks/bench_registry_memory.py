"""Memory of the registry while a layer of 4 GB is pushed and pulled, and while several are, beside docker-registry's.

Resident memory of the server process in MiB: before, the largest meanwhile as the kernel kept it, and afterwards.
"""

from __future__ import annotations

import time
from functools import partial

from figures import Figures
from registry_rig import Contents, Line, Registry, arguments, in_parallel, standing_registries

from metalmark.model import MIB


def measure(figures: Figures, registry: Registry, name: str, contents: Contents, size: int, lines: int) -> None:
    """Push and pull over some connections at once."""
    made = [contents.new(size) for _ in range(lines)]
    named = [(content, content.digest) for content in made]
    steps = {
        "push": [partial(Line.push, content=content, digest=digest) for content, digest in named],
        "pull": [partial(Line.pull, digest=digest) for _, digest in named],
    }
    for what, works in steps.items():
        before = registry.memory_bytes("VmRSS")
        registry.forget_peak()
        in_parallel(registry, lines, works)
        largest = registry.memory_bytes("VmHWM")
        time.sleep(1)
        after = registry.memory_bytes("VmRSS")
        figures.row(
            registry.name,
            f"{what} of {name}",
            before=round(before / MIB, 1),
            largest=round(largest / MIB, 1),
            afterwards=round(after / MIB, 1),
        )


def main() -> None:
    options = arguments(__doc__)
    figures, contents = Figures("registry_memory", of="registry"), Contents()
    one, several = (64 * MIB, 16 * MIB) if options.quick else (4_000 * MIB, 512 * MIB)
    with standing_registries(options) as registries:
        for registry in registries:
            # What a process loads with its first requests is no matter of sizes.
            with Line(registry) as line:
                warm = contents.new(MIB)
                line.push(warm, warm.digest)
                line.pull(warm.digest)
            measure(figures, registry, f"{one // MIB} MiB", contents, one, 1)
            measure(figures, registry, f"4 at once of {several // MIB} MiB", contents, several, 4)


if __name__ == "__main__":
    main()
