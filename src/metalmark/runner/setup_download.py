"""``host setup --download``: everything for a machine without a network, into one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metalmark.model import InputError, NoPermission, StableError, TransientError
from metalmark.runner.apt import Apt
from metalmark.runner.bundle import MANIFEST, Bundle, BundleFile, Kind, describe_file, stale_files, write_bundle
from metalmark.runner.distribution import Distribution
from metalmark.runner.firecracker import FirecrackerRelease
from metalmark.runner.kernel_package import download_kernel
from metalmark.runner.packages import KERNEL_PACKAGES, packages_for
from metalmark.runner.setup_apply import Say
from metalmark.system import in_thread


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A folder that was made."""

    bundle: Bundle
    manifest_sha256: str


async def download_bundle(
    folder: Path,
    *,
    apt: Apt,
    distribution: Distribution,
    architecture: str,
    unwanted: frozenset[str],
    firecracker: FirecrackerRelease,
    say: Say,
) -> Collected:
    """Collect packages with all they need, the kernel and Firecracker for machines like this one. Needs no root.

    Args:
        folder: Empty, missing, or one that was made like this before: then what it holds is used again.
        apt: The package tools.
        distribution: Of this machine, and so of the one that the folder is for.
        architecture: Debian's word.
        unwanted: Parts to leave out.
        firecracker: The pinned release.
        say: Takes lines of progress.

    Raises:
        InputError: The folder holds something else.
        StableError, TransientError: Something could not be downloaded; there is no manifest then.
    """
    meta = KERNEL_PACKAGES.get((distribution.family, architecture))
    if meta is None:
        raise StableError(f"{distribution.title} on {architecture} is not set up automatically")
    await in_thread(_prepare, folder)
    wanted = packages_for(architecture)
    files: list[BundleFile] = []
    names: tuple[str, ...] = ()
    if "packages" not in unwanted:
        known = await apt.candidates([package.name for package in wanted])
        if lacking := [package.name for package in wanted if package.required and package.name not in known]:
            hint = "run `apt-get update` as root, then again"
            raise StableError(f"apt has no package {', '.join(lacking)}", hint=hint)
        names = tuple(package.name for package in wanted if package.name in known)
        say(f"downloading {', '.join(names)} with all that they need")
        paths = await apt.download_complete(names, folder / "packages")
        files += await in_thread(_tidy, folder, paths)
    if "kernel" not in unwanted:
        say(f"downloading the kernel of {meta}")
        image, modules = await download_kernel(apt, meta, folder / "kernel")
        await in_thread(_remove, stale_files(folder / "kernel", (image, *modules)))
        files.append(await in_thread(describe_file, folder, image, Kind.KERNEL))
        files += [await in_thread(describe_file, folder, path, Kind.KERNEL_MODULES) for path in modules]
    if "firecracker" not in unwanted:
        say(f"downloading Firecracker {firecracker.version}")
        archive = await _fetch(firecracker, folder / "firecracker")
        files.append(await in_thread(describe_file, folder, archive, Kind.FIRECRACKER))
    bundle = Bundle(
        distribution=distribution.name,
        version=distribution.version,
        architecture=architecture,
        packages=names,
        files=tuple(files),
    )
    return Collected(bundle=bundle, manifest_sha256=await in_thread(write_bundle, folder, bundle))


async def _fetch(firecracker: FirecrackerRelease, folder: Path) -> Path:
    try:
        return await firecracker.fetch(folder)
    except TransientError as error:
        hint = "try again later, or leave it out: --without firecracker"
        raise TransientError(error.found, why=error.why, hint=hint) from error


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = {"packages", "kernel", "firecracker", MANIFEST}
        if others := sorted(path.name for path in folder.iterdir() if path.name not in known):
            why = f"it holds something else: {', '.join(others[:5])}"
            raise InputError("--download", str(folder), why, hint="name a folder that is empty or does not exist")
        (folder / MANIFEST).unlink(missing_ok=True)  # a collection that breaks off must not look whole
        for name in ("packages", "kernel", "firecracker"):
            (folder / name).mkdir(exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise NoPermission(f"{folder} cannot be written", why=error.strerror or str(error)) from error


def _tidy(folder: Path, paths: tuple[Path, ...]) -> list[BundleFile]:
    """Remove what an earlier collection left and apt's own files, and describe the rest."""
    _remove(stale_files(folder / "packages", paths))
    for leftover in (folder / "packages/partial", folder / "packages/lock"):
        if leftover.is_dir():
            _remove(tuple(leftover.iterdir()))
            leftover.rmdir()
        else:
            leftover.unlink(missing_ok=True)
    return [describe_file(folder, path, Kind.PACKAGE) for path in paths]


def _remove(paths: tuple[Path, ...]) -> None:
    for path in paths:
        path.unlink()
