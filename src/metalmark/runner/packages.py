"""The distribution packages that a user's machine needs, by their Debian and Ubuntu names.

``scripts/packages/run`` of the repository repeats the list for shell scripts; a test holds the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass

KERNEL_PACKAGES = {
    ("debian", "amd64"): "linux-image-cloud-amd64",
    ("debian", "arm64"): "linux-image-cloud-arm64",
    ("ubuntu", "amd64"): "linux-image-virtual",
    ("ubuntu", "arm64"): "linux-image-virtual",
}
"""(family, architecture) to the package that depends on the newest kernel for virtual machines."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package."""

    name: str
    architectures: tuple[str, ...] = ()
    """The Debian architectures it is wanted on; empty: all."""
    purpose: str
    required: bool = True
    """Whether set-up fails where the distribution has not got it."""


PACKAGES = (
    Package(name="e2fsprogs", purpose="mke2fs: scratch disks and ext4 root file systems"),
    Package(name="iproute2", purpose="ip: addresses inside a network namespace"),
    Package(name="passt", purpose="networking for --network", required=False),
    Package(name="qemu-system-arm", architectures=("arm64",), purpose="sandbox qemu"),
    Package(name="qemu-system-x86", architectures=("amd64",), purpose="sandbox qemu"),
    Package(name="runc", purpose="sandbox container"),
    Package(name="squashfs-tools", purpose="mksquashfs: root file systems"),
    Package(name="util-linux", purpose="setpriv, mount, unshare"),
)
"""Sorted by name."""


def packages_for(architecture: str) -> tuple[Package, ...]:
    """Return what a machine of a Debian architecture needs."""
    return tuple(package for package in PACKAGES if not package.architectures or architecture in package.architectures)
