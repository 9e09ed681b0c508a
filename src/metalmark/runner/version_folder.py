"""Making a version of an install: from an artifact, offline, or as a copy of the install that runs now.

Every step runs as a process of its own with a deadline, in the folder where the version is to stay: an environment of
Python cannot be moved. What did not end well is deleted.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import metalmark
from metalmark.model import InputError, NoSpace, StableError
from metalmark.runner.installation import WORK_PREFIX, Installation, InstalledVersion
from metalmark.system import Completed, in_thread, no_space_told, run
from metalmark.wire import UpdateArtifact, UpdateManifest

_STEP_S = 600.0
_SMOKE_S = 120.0
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
    "PYTHONNOUSERSITE": "1",
    # The unit of the service gives it, so no command line does.
    "METALMARK_RUNNER": "smoke-test",
}
"""Nothing of this process's own: no index, proxy or configuration of pip, and no modules of a user."""
_CHECKSUM_CHARACTERS = 12
_PROGRAM = """\
#!{python}
import sys
from metalmark.cli.main import main
sys.exit(main())
"""


async def install_artifact(
    installation: Installation, artifact: Path, *, checksum: str, arguments: Sequence[str] = ()
) -> InstalledVersion:
    """Make a version from an artifact whose checksum is right. Nothing is asked of any network.

    Args:
        installation: Where to.
        artifact: The tar.
        checksum: Its SHA-256, lower-case hex; it is checked again.
        arguments: Command line that the version has to understand.

    Raises:
        StableError: The artifact is for other machines, or does not work on this one.
        ProtocolError: It is no artifact.
        NoSpace: The file system is full.
    """
    await in_thread(installation.prepare)
    found = await in_thread(artifact_checksum, artifact)
    if found != checksum:
        raise StableError("the artifact has another checksum", why=f"{found} instead of {checksum}")
    with tempfile.TemporaryDirectory(prefix=WORK_PREFIX, dir=installation.root) as place:
        manifest = await in_thread(_unpack, artifact, Path(place))
        name = f"{manifest.version}-{checksum[:_CHECKSUM_CHARACTERS]}"
        version = InstalledVersion(name=name, version=manifest.version, checksum=checksum)
        if await in_thread(installation.read, name) == version:
            return version
        await _make(installation, version, manifest, Path(place), arguments)
    return version


async def _make(
    installation: Installation,
    version: InstalledVersion,
    manifest: UpdateManifest,
    wheels: Path,
    arguments: Sequence[str],
) -> None:
    folder = installation.folder(version.name)
    await in_thread(installation.discard, version.name)
    try:
        await _step("venv", [sys.executable, "-I", "-m", "venv", "--without-pip", str(folder)])
        requirements = wheels / "requirements.txt"
        await in_thread(requirements.write_text, "\n".join(manifest.requirements) + "\n", "utf-8")
        await _step(
            "pip",
            [
                str(folder / "bin/python"), "-I", str(wheels / manifest.installer / "pip"), "--isolated", "install",
                "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-index", "--no-deps",
                "--require-hashes", "--find-links", str(wheels), "--requirement", str(requirements),
            ],
        )  # fmt: skip
        await smoke_test(installation.program(version.name), version.version, arguments)
        await in_thread(installation.finish, version)
    except BaseException:
        await in_thread(installation.discard, version.name)
        raise


async def smoke_test(program: Path, version: str, arguments: Sequence[str]) -> None:
    """Make sure that a version starts, is the one it should be, and understands a command line.

    Raises:
        StableError: It does not.
    """
    done = await _step("the new version", [str(program), "--version"], limit_s=_SMOKE_S)
    said = done.stdout.decode("utf-8", "replace").strip()
    if said != f"metalmark {version}":
        raise StableError(f"the new version says {said[:80]!r}", why=f"it should be {version}")
    await _step("the new version", [str(program), "runner", "smoke-test", "--", *arguments], limit_s=_SMOKE_S)


async def _step(what: str, argv: list[str], *, limit_s: float = _STEP_S) -> Completed:
    done = await run(argv, timeout_s=limit_s, env=_ENVIRONMENT)
    if done.returncode != 0:
        if "No space left" in done.error_text:
            raise NoSpace("no space left for another version", hint="free some below /opt/metalmark")
        raise StableError(f"{what} failed with {done.returncode}", why=done.error_text[-600:])
    return done


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def artifact_checksum(path: Path) -> str:
    """Return the SHA-256 of an artifact, lower-case hex. Blocking.

    Raises:
        InputError: It cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError("artifact", str(path), error.strerror or "it cannot be read") from None


def _unpack(artifact: Path, folder: Path) -> UpdateManifest:
    python, machine = _python(), platform.machine()
    with artifact.open("rb") as stream, no_space_told(folder):
        read = UpdateArtifact(stream)
        if not read.manifest.suits(python=python, architecture=machine):
            known = ", ".join(f"{target.python} on {target.architecture}" for target in read.manifest.targets)
            raise StableError(
                f"the artifact is not for Python {python} on {machine}", why=f"it is for {known}",
                hint="publish one that is: scripts/build-update --help",
            )  # fmt: skip
        for wheel, pieces in read.wheels():
            with (folder / wheel.file).open("xb") as target:
                for piece in pieces:
                    target.write(piece)
    return read.manifest


async def install_copy(installation: Installation, *, arguments: Sequence[str] = ()) -> InstalledVersion:
    """Make a version of what this process runs from: every package of its environment.

    Raises:
        StableError: This is a checkout or the system's own Python, or the copy does not work.
        NoSpace: The file system is full.
    """
    packages = _own_packages()
    await in_thread(installation.prepare)
    current = await in_thread(installation.current)
    names = (f"{metalmark.__version__}-copy", f"{metalmark.__version__}-copy-again")
    # The one in use is not pulled from under the service.
    name = names[1] if current is not None and current.name == names[0] else names[0]
    version = InstalledVersion(name=name, version=metalmark.__version__, checksum=None)
    await in_thread(installation.discard, name)
    folder = installation.folder(name)
    try:
        await _step("venv", [sys.executable, "-I", "-m", "venv", "--without-pip", str(folder)])
        await in_thread(_copy, packages, folder)
        await smoke_test(installation.program(name), version.version, arguments)
        await in_thread(installation.finish, version)
    except BaseException:
        await in_thread(installation.discard, name)
        raise
    return version


def _own_packages() -> Path:
    packages = Path(sysconfig.get_path("purelib"))
    whole = sys.prefix != sys.base_prefix and Path(metalmark.__file__).is_relative_to(packages)
    if not whole:
        raise StableError(
            "this Metalmark runs from a checkout, or from the system's own Python",
            why="only a virtual environment of its own can be copied",
            hint="give an artifact (--artifact FILE), which scripts/build-update makes; or install into an environment",
        )
    return packages


def _copy(packages: Path, folder: Path) -> None:
    target = folder / f"lib/python{_python()}/site-packages"
    with no_space_told(target):
        shutil.copytree(packages, target, symlinks=True, dirs_exist_ok=True)
        program = folder / "bin/metalmark"
        program.write_text(_PROGRAM.format(python=folder / "bin/python"), "utf-8")
        program.chmod(0o755)
