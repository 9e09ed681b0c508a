"""Debian's and Ubuntu's package tools: what is installed, what could be, installing and downloading.

Every call has a deadline, speaks the C locale and asks no questions. Installing is not interrupted by a cancellation:
half-configured packages would be worse than a late end.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from metalmark.model import NoPermission, StableError, TransientError
from metalmark.system import Completed, find_tool, in_thread, run

_QUERY_LIMIT_S = 60.0
_UPDATE_LIMIT_S = 600.0
_INSTALL_LIMIT_S = 3600.0
_MAX_OUTPUT_BYTES = 16 * 1024 * 1024
_URI = re.compile(r"^'(?P<uri>[^']+)' (?P<name>\S+) (?P<size>\d+)(?: \S+)?$", re.MULTILINE)
_NETWORK_TROUBLE = ("Could not resolve", "Could not connect", "Failed to fetch", "timed out", "Temporary failure")
_QUIET = ("-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Install-Recommends=false")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A package file that apt would download."""

    uri: str
    file_name: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """A package file on this machine, and what it has to be."""

    path: Path
    size_bytes: int
    sha256: str


class Apt:
    """apt and dpkg of this machine.

    Args:
        environment: The environment that the tools get, beside the locale.
        options: Options for every apt-get and apt-cache call, such as those of a local repository.
    """

    def __init__(self, environment: Mapping[str, str], *, options: Sequence[str] = ()) -> None:
        self._environment = {**environment, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        self._options = tuple(options)

    def with_options(self, options: Sequence[str]) -> Apt:
        """Return the same with more options."""
        return Apt(self._environment, options=(*self._options, *options))

    async def installed(self, names: Iterable[str]) -> frozenset[str]:
        """Return those of the packages that are installed."""
        wanted = list(names)
        argv = [find_tool("dpkg-query"), "--show", "--showformat=${Package} ${db:Status-Status}\n", *wanted]
        done = await self._run(argv, limit_s=_QUERY_LIMIT_S)
        lines = (line.split() for line in done.stdout.decode("utf-8", "replace").splitlines())
        return frozenset(fields[0] for fields in lines if len(fields) == 2 and fields[1] == "installed")

    async def candidates(self, names: Iterable[str]) -> dict[str, str]:
        """Return the version that would be installed, for those of the packages that there are."""
        done = await self._apt_cache("policy", *names)
        found: dict[str, str] = {}
        name = ""
        for line in done.stdout.decode("utf-8", "replace").splitlines():
            if line and not line.startswith(" "):
                name = line.partition(":")[0]
            elif line.strip().startswith("Candidate:"):
                version = line.partition(":")[2].strip()
                if version != "(none)":
                    found[name] = version
        return found

    async def depends(self, name: str) -> tuple[str, ...]:
        """Return the names of the packages that one depends on directly."""
        done = await self._apt_cache("depends", name)
        lines = (line.strip() for line in done.stdout.decode("utf-8", "replace").splitlines())
        return tuple(
            line.partition(":")[2].strip() for line in lines if line.lstrip("|").startswith(("Depends:", "PreDepends:"))
        )

    async def update(self) -> None:
        """Fetch the lists of packages; needs root.

        Raises:
            TransientError: A mirror could not be reached.
            NoPermission, StableError
        """
        done = await self._run(self._apt_get("update"), limit_s=_UPDATE_LIMIT_S)
        # Lists that could not be fetched are a warning to apt, and old or no lists to us.
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        if done.returncode != 0 or "Some index files failed to download" in said:
            raise _refused("apt-get update", done)

    async def install(self, names: Sequence[str]) -> None:
        """Install packages; needs root. Runs to its end also when cancelled.

        Raises:
            TransientError: A mirror could not be reached.
            NoPermission, StableError
        """
        with anyio.CancelScope(shield=True):
            done = await self._run(self._apt_get("install", "--yes", *names), limit_s=_INSTALL_LIMIT_S)
        if done.returncode != 0:
            raise _refused(f"apt-get install {shlex.join(names)}", done)

    async def archives(self, names: Sequence[str], *, complete: bool = False) -> tuple[Archive, ...]:
        """Return the package files of some packages, and with ``complete`` of all that they need on an empty system."""
        async with self._empty_status() as options:
            words = ["install", "--yes", *options] if complete else ["download"]
            done = await self._run(self._apt_get(*words, "--print-uris", *names), limit_s=_QUERY_LIMIT_S)
        if done.returncode != 0:
            raise _refused(f"apt-get {words[0]} --print-uris {shlex.join(names)}", done)
        return tuple(
            Archive(uri=match["uri"], file_name=match["name"], size_bytes=int(match["size"]))
            for match in _URI.finditer(done.stdout.decode("utf-8", "replace"))
        )

    async def download(self, names: Sequence[str], folder: Path) -> tuple[Path, ...]:
        """Download package files, checked by apt against the signed lists, into a folder. Needs no root.

        Raises:
            TransientError: A mirror could not be reached.
            StableError: There is no such package.
        """
        files = await self.archives(names)
        argv = self._apt_get("download", *_UNSANDBOXED, *names)
        done = await self._run(argv, limit_s=_INSTALL_LIMIT_S, cwd=folder)
        if done.returncode != 0:
            raise _refused(f"apt-get download {shlex.join(names)}", done)
        return tuple(folder / file.file_name for file in files)

    async def download_complete(self, names: Sequence[str], folder: Path) -> tuple[Path, ...]:
        """Download packages with all that they need on an empty system; what is there is kept. Needs no root."""
        files = await self.archives(names, complete=True)
        (folder / "partial").mkdir(parents=True, exist_ok=True)
        async with self._empty_status() as options:
            words = (*options, "--download-only", "-o", f"Dir::Cache::archives={folder}", *_UNSANDBOXED)
            done = await self._run(self._apt_get("install", "--yes", *words, *names), limit_s=_INSTALL_LIMIT_S)
        if done.returncode != 0:
            raise _refused(f"apt-get install --download-only {shlex.join(names)}", done)
        return tuple(folder / file.file_name for file in files)

    @asynccontextmanager
    async def _empty_status(self) -> AsyncIterator[tuple[str, ...]]:
        """Options by which apt plans for a system on which nothing is installed, and locks nothing."""
        with tempfile.TemporaryDirectory(prefix="metalmark-apt-") as name:
            (Path(name) / "status").touch()
            (Path(name) / "archives/partial").mkdir(parents=True)
            yield (
                "-o", f"Dir::State::status={name}/status",
                "-o", f"Dir::State::extended_states={name}/extended_states",
                # apt does not name what it has in its archives already.
                "-o", f"Dir::Cache::archives={name}/archives",
                "-o", "Dir::Cache::pkgcache=",
                "-o", "Dir::Cache::srcpkgcache=",
                "-o", "Debug::NoLocking=1",
            )  # fmt: skip

    def _apt_get(self, *words: str) -> list[str]:
        return [find_tool("apt-get"), "-q", *_QUIET, *self._options, *words]

    async def _apt_cache(self, *words: str) -> Completed:
        return await self._run([find_tool("apt-cache"), *self._options, *words], limit_s=_QUERY_LIMIT_S)

    async def _run(self, argv: Sequence[str], *, limit_s: float, cwd: Path | None = None) -> Completed:
        return await run(argv, timeout_s=limit_s, env=self._environment, cwd=cwd, max_output_bytes=_MAX_OUTPUT_BYTES)


_UNSANDBOXED = ("-o", "APT::Sandbox::User=root")
"""apt downloads as the user _apt, who may not write into our private folders."""


@asynccontextmanager
async def local_repository(apt: Apt, packages: Sequence[PackageFile]) -> AsyncIterator[Apt]:
    """Give an `Apt` whose only source are these package files.

    Their digests go into the index that apt checks each file against when it reads it, so one that was exchanged since
    it was looked at is refused.
    """
    with tempfile.TemporaryDirectory(prefix="metalmark-repository-") as name:
        folder = Path(name)
        stanzas = [await _stanza(package.path) for package in packages]
        await in_thread(_write_repository, folder, packages, stanzas)
        options = (
            "-o", f"Dir::Etc::sourcelist={folder}/sources.list",
            "-o", "Dir::Etc::sourceparts=-",
            "-o", f"Dir::State::lists={folder}/lists",
            "-o", "Dir::Cache::pkgcache=",
            "-o", "Dir::Cache::srcpkgcache=",
            *_UNSANDBOXED,
        )  # fmt: skip
        local = apt.with_options(options)
        await local.update()
        yield local


async def _stanza(package: Path) -> str:
    done = await run([find_tool("dpkg-deb"), "--field", str(package)], timeout_s=_QUERY_LIMIT_S)
    if done.returncode != 0:
        raise StableError(f"{package} is not a Debian package", why=done.error_text)
    return done.stdout.decode("utf-8", "replace").rstrip("\n")


def _write_repository(folder: Path, packages: Sequence[PackageFile], stanzas: Sequence[str]) -> None:
    pool = folder / "pool"
    pool.mkdir()
    (folder / "lists/partial").mkdir(parents=True)
    entries = []
    for package, stanza in zip(packages, stanzas, strict=True):
        (pool / package.path.name).symlink_to(package.path.absolute())
        entries.append(
            f"{stanza}\nFilename: ./{package.path.name}\nSize: {package.size_bytes}\nSHA256: {package.sha256}\n"
        )
    (pool / "Packages").write_text("\n".join(entries), encoding="utf-8")
    (folder / "sources.list").write_text(f"deb [trusted=yes] file:{pool} ./\n", encoding="utf-8")


def _refused(what: str, done: Completed) -> StableError | TransientError:
    said = (done.stderr or done.stdout)[-4000:].decode("utf-8", "replace")
    errors = [line for line in said.splitlines() if line.startswith(("E:", "W:", "Err:"))]
    why = "; ".join(errors[-3:]) or said.strip().rpartition("\n")[2]
    if "are you root" in said or "Permission denied" in said:
        return NoPermission(f"{what} was refused", why=why, hint="run it as root")
    if any(words in said for words in _NETWORK_TROUBLE):
        return TransientError(f"{what} failed", why=why, hint="see whether the package mirror can be reached")
    if "Unable to locate package" in said:
        return StableError(f"{what} failed", why=why, hint="run `apt-get update` as root, then again")
    return StableError(f"{what} failed", why=why, hint="run it by hand to see all of its output")
