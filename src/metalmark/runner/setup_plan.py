"""What ``metalmark host setup`` will do: decided from facts, without doing any of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metalmark.model import InputError, StableError
from metalmark.runner.distribution import Distribution, as_root, install_command
from metalmark.runner.packages import KERNEL_PACKAGES, packages_for

PARTS = ("packages", "kernel", "kvm-group", "firecracker")
"""What can be asked for with ``--with`` and left out with ``--without``."""


@dataclass(frozen=True, kw_only=True)
class SetupFacts:
    """What there is."""

    distribution: Distribution
    architecture: str
    """Debian's word."""
    uid: int
    installed: frozenset[str]
    """Those of the wanted packages that are installed."""
    kernel_known: bool
    """Whether apt's lists have the kernel package."""
    kernels: tuple[str, ...]
    """Releases of the guest kernels that are set up for this machine, newest first."""
    kernels_folder: Path
    kvm_works: bool
    kvm_group: str | None
    """The group of ``/dev/kvm``, or ``kvm`` when there is such a group; None: neither."""
    group_user: str | None
    """Who is to join it: the user, or who became root with sudo; None: nobody, root needs no group."""
    in_group: bool
    firecracker: str | None
    """Where it is installed already; None: nowhere."""
    firecracker_version: str
    """The pinned version, which would be installed."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user asked for."""

    wanted: frozenset[str] = frozenset()
    """``--with``: parts also where they are there already, or would be left out by default."""
    unwanted: frozenset[str] = frozenset()
    bundle: Path | None = None
    """``--from``: take everything from this folder."""
    bundle_has: frozenset[str] = frozenset()
    """The parts that the folder holds."""
    program: str = "metalmark"
    """How this command is called; a path where sudo, with its own PATH, would not find it."""


@dataclass(frozen=True, kw_only=True)
class InstallPackages:
    """Install distribution packages."""

    names: tuple[str, ...]
    bundle: Path | None = None

    def describe(self) -> str:
        """Return a line for the plan."""
        source = f"from {self.bundle}" if self.bundle else "with apt-get"
        return f"install {', '.join(self.names)} {source}"


@dataclass(frozen=True, kw_only=True)
class UnpackKernel:
    """Get the distribution's kernel for virtual machines and unpack it below the state folder."""

    package: str
    folder: Path
    update: bool
    """Whether the lists of packages are fetched first, which needs root."""
    bundle: Path | None = None

    def describe(self) -> str:
        """Return a line for the plan."""
        source = f"take {self.package} from {self.bundle}" if self.bundle else f"download {self.package}"
        return f"{source} and unpack it into {self.folder} as guest kernel; it is not installed on this machine"


@dataclass(frozen=True, kw_only=True)
class InstallFirecracker:
    """Install Firecracker's pinned version below the state folder."""

    version: str
    required: bool
    """Whether it was asked for: then its failure is the set-up's."""
    bundle: Path | None = None

    def describe(self) -> str:
        """Return a line for the plan."""
        source = f"from {self.bundle}" if self.bundle else "from its release page"
        return f"install Firecracker {self.version} {source}, checked against its pinned SHA-256"


@dataclass(frozen=True, kw_only=True)
class JoinGroup:
    """Put a user into the group that may use KVM."""

    user: str
    group: str

    def describe(self) -> str:
        """Return a line for the plan."""
        return f"put {self.user} into group {self.group}, from the next login on"


Action = InstallPackages | UnpackKernel | InstallFirecracker | JoinGroup


@dataclass(frozen=True, kw_only=True)
class SetupPlan:
    """What will be done, what is there already, and what is left to a person."""

    actions: tuple[Action, ...] = ()
    present: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()
    """Command lines that need root, which this user is not."""
    left_out: tuple[str, ...] = ()
    """What is not done, and why."""
    incomplete: bool = False
    """Whether something that every machine needs is left to a person; group kvm only makes benchmarks faster."""

    def as_json(self) -> dict[str, Any]:
        """Return the documented object (docs/howto/prepare-a-host.md)."""
        return {
            "schema": 1,
            "actions": [action.describe() for action in self.actions],
            "present": list(self.present),
            "by_hand": list(self.by_hand),
            "left_out": list(self.left_out),
            "incomplete": self.incomplete,
        }


@dataclass
class _Draft:
    actions: list[Action] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    incomplete: bool = False


def make_plan(facts: SetupFacts, wishes: Wishes) -> SetupPlan:
    """Decide what set-up does.

    Raises:
        InputError: A part that there is not, or that is both wanted and unwanted.
        StableError: A distribution or a machine that is not set up automatically.
    """
    for flag, parts in (("--with", wishes.wanted), ("--without", wishes.unwanted)):
        for part in sorted(parts - set(PARTS)):
            raise InputError(flag, part, "there is no such part", hint=f"the parts are {', '.join(PARTS)}")
    if both := wishes.wanted & wishes.unwanted:
        raise InputError("--without", ", ".join(sorted(both)), "it is also given with --with")
    family = facts.distribution.family
    if (family, facts.architecture) not in KERNEL_PACKAGES:
        names = ", ".join(package.name for package in packages_for("amd64"))
        raise StableError(
            f"{facts.distribution.title} on {facts.architecture} is not set up automatically",
            why="that works on Debian and Ubuntu, on amd64 and arm64",
            hint=f"install what your distribution calls {names}, then see `metalmark host doctor`",
        )
    draft = _Draft()
    for part, decide in (
        ("packages", _packages),
        ("kernel", _kernel),
        ("kvm-group", _group),
        ("firecracker", _firecracker),
    ):
        if part in wishes.unwanted:
            draft.left_out.append(f"{part}: left out, as asked")
        else:
            decide(draft, facts, wishes)
    return SetupPlan(
        actions=tuple(draft.actions),
        present=tuple(draft.present),
        by_hand=tuple(draft.by_hand),
        left_out=tuple(draft.left_out),
        incomplete=draft.incomplete,
    )


def _packages(draft: _Draft, facts: SetupFacts, wishes: Wishes) -> None:
    wanted = [package.name for package in packages_for(facts.architecture)]
    missing = tuple(name for name in wanted if name not in facts.installed)
    there = [name for name in wanted if name in facts.installed]
    if there:
        draft.present.append(f"packages {', '.join(there)}")
    if not missing:
        return
    if facts.uid == 0:
        draft.actions.append(InstallPackages(names=missing, bundle=wishes.bundle))
        return
    draft.incomplete = True
    if wishes.bundle is not None:
        draft.by_hand.append(_again_as_root(wishes.program, wishes.bundle))
    else:
        draft.by_hand.append(install_command(missing, family=facts.distribution.family, uid=facts.uid))


def _again_as_root(program: str, bundle: Path) -> str:
    without = [word for part in ("kernel", "kvm-group", "firecracker") for word in ("--without", part)]
    return as_root([program, "host", "setup", "--from", str(bundle.absolute()), *without], uid=1)


def _kernel(draft: _Draft, facts: SetupFacts, wishes: Wishes) -> None:
    if facts.kernels and "kernel" not in wishes.wanted:
        draft.present.append(f"guest kernel {facts.kernels[0]} in {facts.kernels_folder}")
        return
    package = KERNEL_PACKAGES[facts.distribution.family, facts.architecture]
    if wishes.bundle is not None and "kernel" not in wishes.bundle_has:
        draft.left_out.append(f"kernel: {wishes.bundle} holds none")
        return
    if wishes.bundle is None and facts.uid != 0 and not facts.kernel_known:
        draft.incomplete = True
        draft.by_hand.append("sudo apt-get update && metalmark host setup")
        return
    draft.actions.append(
        UnpackKernel(
            package=package,
            folder=facts.kernels_folder,
            update=facts.uid == 0 and wishes.bundle is None,
            bundle=wishes.bundle,
        )
    )


def _group(draft: _Draft, facts: SetupFacts, _wishes: Wishes) -> None:
    if facts.group_user is None:
        return
    if facts.kvm_group is None:
        draft.left_out.append("kvm-group: there is no group kvm, nor a /dev/kvm")
    elif facts.in_group:
        draft.present.append(f"{facts.group_user} in group {facts.kvm_group}")
    elif facts.uid == 0:
        draft.actions.append(JoinGroup(user=facts.group_user, group=facts.kvm_group))
    else:
        draft.by_hand.append(as_root(["usermod", "-aG", facts.kvm_group, facts.group_user], uid=facts.uid))


def _firecracker(draft: _Draft, facts: SetupFacts, wishes: Wishes) -> None:
    asked = "firecracker" in wishes.wanted
    if facts.firecracker is not None:
        draft.present.append(f"firecracker at {facts.firecracker}")
    elif not asked and not facts.kvm_works:
        draft.left_out.append("firecracker: KVM does not work here (ask for it with --with firecracker)")
    elif wishes.bundle is not None and "firecracker" not in wishes.bundle_has:
        if asked:
            raise InputError("--with", "firecracker", f"{wishes.bundle} does not hold it")
        draft.left_out.append(f"firecracker: {wishes.bundle} does not hold it")
    else:
        draft.actions.append(
            InstallFirecracker(version=facts.firecracker_version, required=asked, bundle=wishes.bundle)
        )
