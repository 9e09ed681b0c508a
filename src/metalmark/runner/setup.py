"""``metalmark host setup``: plan, apply, and the folder for machines without a network, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import InputError
from metalmark.runner.apt import Apt
from metalmark.runner.bundle import Bundle, Kind, read_bundle, verify_bundle
from metalmark.runner.distribution import Distribution, architecture_of, read_distribution
from metalmark.runner.firecracker import FirecrackerRelease
from metalmark.runner.setup_apply import Say, SetupReport, SetupRun
from metalmark.runner.setup_download import Collected, download_bundle
from metalmark.runner.setup_facts import read_setup_facts
from metalmark.runner.setup_plan import SetupPlan, Wishes, make_plan
from metalmark.sandbox import DriverSettings
from metalmark.system import ensure_private, in_thread

_PARTS = {Kind.PACKAGE: "packages", Kind.KERNEL: "kernel", Kind.FIRECRACKER: "firecracker"}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One set-up of this machine: made by `prepare_setup`, shown to the user, then applied."""

    plan: SetupPlan
    apt: Apt
    firecracker: FirecrackerRelease
    state: Path
    """The state folder, in which kernels and Firecracker get their places."""
    folder: Path | None = None
    bundle: Bundle | None = None

    async def apply(self, say: Say) -> SetupReport:
        """Do what the plan says; a folder is verified once more, for it may have changed while the user read."""
        if self.folder is not None and self.bundle is not None:
            await in_thread(verify_bundle, self.folder, self.bundle)
        await in_thread(ensure_private, self.state)
        run = SetupRun(
            apt=self.apt, firecracker=self.firecracker, say=say, bundle_folder=self.folder, bundle=self.bundle
        )
        return await run.apply(self.plan)


async def prepare_setup(
    settings: DriverSettings,
    *,
    environment: Mapping[str, str],
    firecracker: FirecrackerRelease,
    wanted: frozenset[str] = frozenset(),
    unwanted: frozenset[str] = frozenset(),
    folder: Path | None = None,
    manifest_sha256: str | None = None,
    program: str = "metalmark",
    root: Path = Path("/"),
) -> Setup:
    """Read the machine, check the folder to install from, and plan. Changes nothing.

    Args:
        settings: Folders and machine.
        environment: For the package tools and ``SUDO_USER``.
        firecracker: The pinned release.
        wanted: ``--with``.
        unwanted: ``--without``.
        folder: ``--from``.
        manifest_sha256: What the folder's manifest must hash to.
        program: How this command is called, for commands that are left to the user.
        root: Where ``/etc`` and ``/dev`` are looked for.

    Raises:
        InputError: A part or a folder that cannot be used.
        DigestMismatch: A file of the folder is not the one that was collected.
        StableError: A distribution that is not set up automatically.
    """
    apt = Apt(environment)
    bundle = None
    if folder is not None:
        distribution, architecture = read_distribution(root), architecture_of(settings.machine)
        bundle = await in_thread(_open_bundle, folder, distribution, architecture, manifest_sha256)
    facts = await read_setup_facts(settings, apt=apt, environment=environment, firecracker=firecracker, root=root)
    parts = frozenset(_PARTS[file.kind] for file in bundle.files if file.kind in _PARTS) if bundle else frozenset()
    wishes = Wishes(wanted=wanted, unwanted=unwanted, bundle=folder, bundle_has=parts, program=program)
    return Setup(
        plan=make_plan(facts, wishes),
        apt=apt,
        firecracker=firecracker,
        state=settings.folders.state,
        folder=folder,
        bundle=bundle,
    )


def _open_bundle(folder: Path, distribution: Distribution, architecture: str, manifest_sha256: str | None) -> Bundle:
    bundle = read_bundle(folder, manifest_sha256=manifest_sha256)
    made_for = (bundle.distribution, bundle.version, bundle.architecture)
    here = (distribution.name, distribution.version, architecture)
    if made_for != here:
        raise InputError(
            "--from",
            str(folder),
            f"it was collected for {' '.join(made_for)}, and this machine is {' '.join(here)}",
            hint="run `metalmark host setup --download DIR` on a machine like this one",
        )
    verify_bundle(folder, bundle)
    return bundle


async def collect(
    folder: Path,
    settings: DriverSettings,
    *,
    environment: Mapping[str, str],
    firecracker: FirecrackerRelease,
    unwanted: frozenset[str],
    say: Say,
    root: Path = Path("/"),
) -> Collected:
    """Carry out ``--download``; see `download_bundle`."""
    return await download_bundle(
        folder,
        apt=Apt(environment),
        distribution=read_distribution(root),
        architecture=architecture_of(settings.machine),
        unwanted=unwanted,
        firecracker=firecracker,
        say=say,
    )
