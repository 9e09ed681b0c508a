"""The distribution's kernel package for virtual machines: found behind its meta-package, and downloaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import StableError
from metalmark.runner.apt import Apt

_IMAGE = re.compile(r"linux-image-(?:unsigned-)?(\d\S*)")
_MOST_STEPS = 4
"""``linux-image-virtual`` and its like stand a step or two before the package that holds a kernel."""


@dataclass(frozen=True, kw_only=True)
class KernelPackages:
    """The packages of one kernel."""

    release: str
    image: str
    modules: str | None
    """Where the distribution ships the modules apart (Ubuntu)."""

    @property
    def names(self) -> tuple[str, ...]:
        """Both, as far as there are both."""
        return (self.image,) if self.modules is None else (self.image, self.modules)


async def resolve_kernel(apt: Apt, meta: str) -> KernelPackages:
    """Follow a meta-package to the package that holds a kernel.

    Raises:
        StableError: It leads to none.
    """
    waiting, seen = [meta], set[str]()
    for _ in range(_MOST_STEPS):
        following: list[str] = []
        for name in waiting:
            if match := _IMAGE.fullmatch(name):
                return await _with_modules(apt, name, match[1])
            seen.add(name)
            following += [found for found in await apt.depends(name) if found.startswith("linux-image-")]
        # The concrete kernel stands before further meta-packages.
        waiting = sorted(set(following) - seen, key=lambda name: _IMAGE.fullmatch(name) is None)
    raise StableError(
        f"{meta} leads to no kernel package",
        why="apt does not know it",
        hint="run `apt-get update` as root, then again",
    )


async def _with_modules(apt: Apt, image: str, release: str) -> KernelPackages:
    modules = f"linux-modules-{release}"
    there = modules in await apt.candidates([modules])
    return KernelPackages(release=release, image=image, modules=modules if there else None)


async def download_kernel(apt: Apt, meta: str, folder: Path) -> tuple[Path, tuple[Path, ...]]:
    """Download the kernel behind a meta-package, and return its package file and those with its modules.

    Raises:
        StableError: There is no such kernel.
        TransientError: The mirror could not be reached.
    """
    packages = await resolve_kernel(apt, meta)
    files = [await apt.download([name], folder) for name in packages.names]
    return files[0][0], tuple(file for more in files[1:] for file in more)
