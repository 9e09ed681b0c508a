"""The platform an image is for, in the words of the OCI image specification (``os/architecture[/variant]``)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from metalmark.model.errors import InputError

_PART = re.compile(r"[a-z0-9][a-z0-9._-]*")
_BY_MACHINE = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "amd64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
}
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7"}


@dataclass(frozen=True)
class Platform:
    """Operating system, architecture and variant, in Go's names as OCI uses them."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str, *, field: str = "--platform") -> Platform:
        """Read ``os/architecture[/variant]``, or an architecture alone, in any case; also as ``uname -m`` names it.

        Raises:
            InputError: Too many parts, or one that is empty or not a name.
        """
        parts = text.lower().split("/")
        if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts) or parts == ["linux"]:
            raise InputError(field, text, "a platform is os/architecture[/variant]", hint="for example linux/arm64")
        if len(parts) == 1:
            parts = ["linux", *parts]
        architecture, variant = _BY_MACHINE.get(parts[1], (parts[1], ""))
        return cls(parts[0], architecture, parts[2] if len(parts) == 3 else variant)

    @classmethod
    def of_machine(cls, machine: str) -> Platform:
        """Return the Linux platform of a ``uname -m`` value."""
        architecture, variant = _BY_MACHINE.get(machine, (machine, ""))
        return cls("linux", architecture, variant)

    def runs(self, image: Platform) -> bool:
        """Whether an image for ``image`` is for this platform; a variant left out means the default one."""
        return (
            self.os == image.os
            and self.architecture == image.architecture
            and self._full_variant == image._full_variant
        )

    @property
    def _full_variant(self) -> str:
        return self.variant or _DEFAULT_VARIANT.get(self.architecture, "")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)
