"""Pinned downloads: Firecracker's release and the guest kernel that its project builds.

A file is used only when its SHA-256 is the one that is written here; nothing else about where it came from matters.
What is installed gets its place by rename, so that it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import anyio
import httpx

from metalmark.model import DigestMismatch, SandboxUnavailable, StableError, TransientError
from metalmark.sandbox.kernel import FORMAT, GuestKernel, installed_kernels
from metalmark.sandbox.settings import DriverSettings
from metalmark.system import ensure_private, in_thread, published

FIRECRACKER_VERSION: Final = "v1.15.1"
KERNEL_VERSION: Final = "6.1.177"
FIRECRACKER_SITE: Final = "https://github.com/firecracker-microvm/firecracker/releases/download"
KERNEL_SITE: Final = "https://s3.amazonaws.com/spec.ccfc.min/firecracker-ci/20260729-c69d0c0490e6-0"
_FIRECRACKER_SHA256: Final = {
    "x86_64": "d4a32ab2322d887ca1bc4a4e7afa9cc35393e6362dfc2b3becb389d362e4275a",
    "aarch64": "00654ac1e702a22744121ea9f10a4f792ebd7c3a744cba587dfac9fcb79b41a5",
}
_KERNEL_SHA256: Final = {
    "x86_64": "ec9394714b715925e57143532e0f76bba17b6b9d66f4e1ae7085455d3fc5bef5",
    "aarch64": "ade81032eba1e102ca752b09034c9ef3b8fe61fde754517de362a48c1fdb5b3d",
}
_KERNEL_BUILTIN: Final = (
    "virtio", "virtio_ring", "virtio_mmio", "virtio_blk", "virtio_net", "vmw_vsock_virtio_transport", "squashfs",
    "overlay", "ext4",
)  # fmt: skip
_MOST_BYTES: Final = 512 * 1024 * 1024
_CONNECT_S: Final = 20.0
_STALL_S: Final = 60.0
_WHOLE_S: Final = 1800.0
_CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One file on a web site, and its digest."""

    name: str
    url: str
    sha256: str

    async def fetch(self, folder: Path) -> Path:
        """Download into a folder and return the file; one that is there and right is kept.

        Raises:
            TransientError: The site could not be reached, broke off, or answered with an error of its own.
            StableError: The site has no such file.
            DigestMismatch: What came is something else; nothing of it stays.
            NoSpace, NoPermission
        """
        target = await in_thread(ensure_private, folder) / self.name
        if await in_thread(target.exists) and await in_thread(_sha256, target) == self.sha256:
            return target
        with published(target) as stream:
            try:
                with anyio.fail_after(_WHOLE_S):
                    await self._download(stream)
            except TimeoutError as error:
                raise TransientError(f"{self.url} did not come within {_WHOLE_S:g} s") from error
            except httpx.HTTPError as error:
                raise TransientError(
                    f"{self.url} could not be fetched",
                    why=str(error) or type(error).__name__,
                    hint="fetch it on a connected machine with `metalmark host setup --download DIR`",
                ) from error
        return target

    async def check(self, file: Path) -> None:
        """Check a file that came another way.

        Raises:
            DigestMismatch: It is another one.
        """
        found = await in_thread(_sha256, file)
        if found != self.sha256:
            raise _mismatch(str(file), found, self.sha256)

    async def _download(self, stream: IO[bytes]) -> None:
        timeout = httpx.Timeout(_STALL_S, connect=_CONNECT_S)
        hasher, size = hashlib.sha256(), 0
        # Redirects lead to other hosts; the digest is what vouches for the content.
        async with (
            httpx.AsyncClient(timeout=timeout, follow_redirects=True) as client,
            client.stream("GET", self.url) as response,
        ):
            if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise TransientError(f"{self.url} answers {response.status_code}")
            if response.status_code != httpx.codes.OK:
                raise StableError(f"{self.url} answers {response.status_code}", why="the file is not there")
            async for chunk in response.aiter_bytes(_CHUNK_BYTES):
                size += len(chunk)
                if size > _MOST_BYTES:
                    raise StableError(f"{self.url} does not end", why=f"more than {_MOST_BYTES} bytes came")
                hasher.update(chunk)
                stream.write(chunk)
        if hasher.hexdigest() != self.sha256:
            raise _mismatch(self.url, hasher.hexdigest(), self.sha256)


class PinnedFirecracker:
    """The release of Firecracker that Metalmark is made for, on this machine's architecture."""

    version = FIRECRACKER_VERSION

    def __init__(self, settings: DriverSettings, *, site: str = FIRECRACKER_SITE, sha256: str = "") -> None:
        """Name the release.

        Args:
            settings: Folders and architecture.
            site: Where releases are.
            sha256: Digest of the archive; empty: the pinned one.

        Raises:
            SandboxUnavailable: There is no release for the architecture.
        """
        machine = _known(settings.machine)
        self._machine = machine
        self._target = firecracker_folder(settings) / FIRECRACKER_VERSION / "firecracker"
        name = f"firecracker-{FIRECRACKER_VERSION}-{machine}.tgz"
        self._artifact = Artifact(
            name=name, url=f"{site}/{FIRECRACKER_VERSION}/{name}", sha256=sha256 or _FIRECRACKER_SHA256[machine]
        )

    def installed(self) -> Path | None:
        """Return where this version is installed, or None."""
        return self._target if self._target.is_file() else None

    async def fetch(self, folder: Path) -> Path:
        """Download the release archive into a folder, checked, and return it. Errors as in `Artifact.fetch`."""
        return await self._artifact.fetch(folder)

    async def install(self, archive: Path) -> Path:
        """Install from a release archive, which is checked first, and return the binary.

        Raises:
            DigestMismatch: The archive is not the pinned one; nothing is installed.
            StableError: There is no Firecracker in it.
            NoSpace, NoPermission
        """
        await self._artifact.check(archive)
        await in_thread(self._extract, archive)
        return self._target

    def _extract(self, archive: Path) -> None:
        member = f"release-{FIRECRACKER_VERSION}-{self._machine}/firecracker-{FIRECRACKER_VERSION}-{self._machine}"
        ensure_private(self._target.parents[1])
        self._target.parent.mkdir(mode=0o700, exist_ok=True)
        with tarfile.open(archive) as tar:
            try:
                source = tar.extractfile(member)
            except KeyError:
                source = None
            if source is None:
                raise StableError(f"{archive} holds no {member}", why="that is the program")
            with source, published(self._target, mode=0o755) as stream:
                while chunk := source.read(_CHUNK_BYTES):
                    stream.write(chunk)


class PinnedKernel:
    """The guest kernel that the Firecracker project builds for its own tests."""

    version = KERNEL_VERSION

    def __init__(self, settings: DriverSettings, *, site: str = KERNEL_SITE, sha256: str = "") -> None:
        """Name the kernel; arguments and errors as with `PinnedFirecracker`."""
        machine = _known(settings.machine)
        self._machine = machine
        self._folder = firecracker_folder(settings) / "kernels"
        name = f"vmlinux-{KERNEL_VERSION}"
        self._artifact = Artifact(name=name, url=f"{site}/{machine}/{name}", sha256=sha256 or _KERNEL_SHA256[machine])

    def installed(self) -> GuestKernel | None:
        """Return the kernel when it is installed."""
        for kernel in installed_kernels(self._folder):
            if kernel.release == KERNEL_VERSION and kernel.machine == self._machine:
                return kernel
        return None

    async def fetch(self, folder: Path) -> Path:
        """Download the kernel into a folder, checked, and return it. Errors as in `Artifact.fetch`."""
        return await self._artifact.fetch(folder)

    async def install(self, image: Path) -> GuestKernel:
        """Install a downloaded kernel, which is checked first.

        Raises:
            DigestMismatch: It is another one; nothing is installed.
            NoSpace, NoPermission
        """
        await self._artifact.check(image)
        await in_thread(self._place, image)
        kernel = await in_thread(self.installed)
        assert kernel is not None
        return kernel

    def _place(self, image: Path) -> None:
        target = self._folder / KERNEL_VERSION
        ensure_private(self._folder.parent)
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with published(target / "image") as stream:
            stream.write(image.read_bytes())
        description = {
            "format": FORMAT, "release": KERNEL_VERSION, "machine": self._machine, "package": image.name,
            "modules": {}, "builtin": sorted(_KERNEL_BUILTIN),
        }  # fmt: skip
        # Last: a kernel without its description is none.
        with published(target / "kernel.json") as stream:
            stream.write(json.dumps(description, indent=1).encode())


def firecracker_folder(settings: DriverSettings) -> Path:
    """Return the folder of what belongs to Firecracker alone."""
    return settings.folders.state / "firecracker"


def _known(machine: str) -> str:
    if machine not in _FIRECRACKER_SHA256:
        raise SandboxUnavailable(f"Firecracker has no release for {machine}", why="there are x86_64 and aarch64")
    return machine


def _sha256(file: Path) -> str:
    hasher = hashlib.sha256()
    with file.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while chunk := stream.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def _mismatch(where: str, found: str, wanted: str) -> DigestMismatch:
    return DigestMismatch(
        f"{where} has the SHA-256 {found}",
        why=f"the pinned one is {wanted}",
        hint="fetch it again; nothing is installed",
    )
