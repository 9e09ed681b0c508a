"""What set-up reads of the host before it plans."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from metalmark.runner.apt import Apt
from metalmark.runner.distribution import architecture_of, read_distribution
from metalmark.runner.firecracker import FirecrackerRelease
from metalmark.runner.host_facts import known_groups, kvm_device_facts, listed_groups, user_name
from metalmark.runner.packages import KERNEL_PACKAGES, packages_for
from metalmark.runner.setup_plan import SetupFacts
from metalmark.sandbox import DriverSettings, installed_kernels, kernels_folder, probe_kvm
from metalmark.system import in_thread


async def read_setup_facts(
    settings: DriverSettings,
    *,
    apt: Apt,
    environment: Mapping[str, str],
    firecracker: FirecrackerRelease,
    root: Path = Path("/"),
) -> SetupFacts:
    """Read what is there. Changes nothing.

    Args:
        settings: Folders and machine.
        apt: The package tools.
        environment: ``SUDO_USER`` names who became root and wants to use KVM.
        firecracker: The pinned release.
        root: Where ``/etc`` and ``/dev`` are looked for.
    """
    distribution = read_distribution(root)
    architecture = architecture_of(settings.machine)
    supported = (distribution.family, architecture) in KERNEL_PACKAGES
    uid = os.geteuid()
    user = environment.get("SUDO_USER") if uid == 0 else user_name(uid)
    user = None if user == "root" else user
    device, folder = kvm_device_facts(root), kernels_folder(settings.folders)
    group = device.group if device.exists and device.group != "root" else "kvm"
    there = group in known_groups(root)
    kernels = await in_thread(installed_kernels, folder)
    found = await in_thread(firecracker.installed)
    meta = KERNEL_PACKAGES.get((distribution.family, architecture), "")
    return SetupFacts(
        distribution=distribution,
        architecture=architecture,
        uid=uid,
        installed=await apt.installed(package.name for package in packages_for(architecture))
        if supported
        else frozenset(),
        kernel_known=supported and meta in await apt.candidates([meta]),
        kernels=tuple(kernel.release for kernel in kernels if kernel.machine == settings.machine),
        kernels_folder=folder,
        kvm_works=(await probe_kvm(settings.kvm_device)).usable,
        kvm_group=group if there else None,
        group_user=user,
        in_group=user is not None and group in listed_groups(root, user),
        firecracker=None if found is None else str(found),
        firecracker_version=firecracker.version,
    )
