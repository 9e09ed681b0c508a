"""A package tool that only remembers what it was asked, and a Firecracker release that is a text file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from metalmark.model import DigestMismatch, MetalmarkError
from metalmark.runner.apt import Apt, Archive


class FakeApt(Apt):
    def __init__(
        self,
        *,
        known: Mapping[str, str] | None = None,
        present: Iterable[str] = (),
        depends: Mapping[str, tuple[str, ...]] | None = None,
        update_error: MetalmarkError | None = None,
    ) -> None:
        super().__init__({})
        self.known = dict(known or {})
        self.present = frozenset(present)
        self.dependencies = dict(depends or {})
        self.update_error = update_error
        self.calls: list[str] = []

    def with_options(self, options: Sequence[str]) -> Apt:
        return self

    async def installed(self, names: Iterable[str]) -> frozenset[str]:
        return self.present & set(names)

    async def candidates(self, names: Iterable[str]) -> dict[str, str]:
        return {name: self.known[name] for name in names if name in self.known}

    async def depends(self, name: str) -> tuple[str, ...]:
        return self.dependencies.get(name, ())

    async def update(self) -> None:
        self.calls.append("update")
        if self.update_error is not None:
            raise self.update_error

    async def install(self, names: Sequence[str]) -> None:
        self.calls.append(f"install {' '.join(names)}")

    async def archives(self, names: Sequence[str], *, complete: bool = False) -> tuple[Archive, ...]:
        return tuple(Archive(uri=f"http://x/{name}", file_name=f"{name}_1_amd64.deb", size_bytes=1) for name in names)

    async def download(self, names: Sequence[str], folder: Path) -> tuple[Path, ...]:
        self.calls.append(f"download {' '.join(names)}")
        folder.mkdir(parents=True, exist_ok=True)
        paths = tuple(folder / f"{name}_1_amd64.deb" for name in names)
        for path in paths:
            path.write_text(path.name)
        return paths

    async def download_complete(self, names: Sequence[str], folder: Path) -> tuple[Path, ...]:
        (folder / "partial").mkdir(parents=True, exist_ok=True)
        (folder / "lock").touch()
        return await self.download([*names, "libc6"], folder)


class FakeFirecracker:
    version = "v1.15.1"

    def __init__(self, binary: Path, *, error: MetalmarkError | None = None) -> None:
        self.binary = binary
        self.error = error

    def installed(self) -> Path | None:
        return self.binary if self.binary.exists() else None

    async def fetch(self, folder: Path) -> Path:
        if self.error is not None:
            raise self.error
        folder.mkdir(parents=True, exist_ok=True)
        archive = folder / "firecracker.tgz"
        archive.write_text("release")
        return archive

    async def install(self, archive: Path) -> Path:
        if archive.read_text() != "release":
            raise DigestMismatch(f"{archive} is not the pinned release")
        self.binary.parent.mkdir(parents=True, exist_ok=True)
        self.binary.write_text("binary")
        return self.binary
