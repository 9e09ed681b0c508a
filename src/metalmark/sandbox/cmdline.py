"""The guest kernel's command line."""

from __future__ import annotations

from metalmark.model import StableError
from metalmark.sandbox.port import Accelerator


def kernel_command_line(
    *,
    machine: str,
    accelerator: Accelerator,
    tsc_khz: int = 0,
    console: str = "",
    vsock_port: int = 0,
    firecracker: bool = False,
) -> str:
    """Return the command line of a box's kernel.

    Args:
        machine: ``x86_64`` or ``aarch64``.
        accelerator: KVM, or TCG, which needs its quirks met.
        tsc_khz: Rate of the host's time stamp counter; must be given for x86-64 under TCG.
        console: Serial console for ``--debug-boot``; empty: none, and a silent kernel.
        vsock_port: Port on which the agent connects to the host; 0: it uses the virtio port.
        firecracker: Firecracker resets through the keyboard controller and has no PCI bus.

    Raises:
        StableError: x86-64 under TCG without ``tsc_khz``.
    """
    words = ["panic=-1", "cryptomgr.notests"]
    words += ["ignore_loglevel", f"console={console}"] if console else ["quiet", "loglevel=0"]
    if machine == "x86_64":
        words += ["reboot=k", "pci=off"] if firecracker else ["reboot=t"]
        # Probing for a keyboard that is not there takes up to a second on some hosts.
        words += ["i8042.noaux", "i8042.nomux", "i8042.nopnp", "i8042.dumbkbd"]
        if accelerator is Accelerator.TCG:
            words += _tcg_words(tsc_khz)
    if vsock_port:
        words.append(f"metalmark.vsock={vsock_port}")
    return " ".join([*words, "--", "init"])


def _tcg_words(tsc_khz: int) -> list[str]:
    """Keep the guest's clock right under TCG.

    Its time stamp counter is the host's. Calibrating it against the emulated timer is a race that up to every tenth
    boot loses on an idle host and nearly every one on a busy host; the guest then spins for ever.
    """
    if tsc_khz <= 0:
        raise StableError("the rate of the host's time stamp counter is not known", why="an emulated guest may hang")
    return ["noreplace-smp", "tsc=reliable", f"tsc_early_khz={tsc_khz}"]
