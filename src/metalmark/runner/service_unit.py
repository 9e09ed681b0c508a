"""The systemd unit of a runner, as text.

It takes away what no sandbox here needs, by capabilities, mounts and the device filter. What systemd would do with a
system-call filter (``SystemCallFilter``, ``RestrictAddressFamilies``, ``ProtectClock`` and their like) is left out on
purpose: processes in a container inherit such filters, so every system call of a benchmark would pay for them, and the
same benchmark would be slower under the service than by hand. ``NoNewPrivileges`` would reach into containers as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metalmark.client import RUNNER_CREDENTIAL_NAME
from metalmark.model import InputError
from metalmark.runner.launcher import LAUNCHER

UNIT_NAME = "metalmark-runner.service"
EXIT_REFUSED = 77
"""Exit code of a runner whose credentials the server refuses (EX_NOPERM): starting it again would not help."""
_STOP_GRACE_S = 60
_WATCHDOG_S = 120
_START_S = 300

_CAPABILITIES = (
    # What a runner does itself: mounts, namespaces, loop devices, cgroups, users of VMMs, placement.
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_KILL",
    "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT",
    "CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE",
    # What container runtimes give to containers beside those.
    "CAP_AUDIT_WRITE", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP",
)  # fmt: skip
_DEVICES = ("/dev/kvm", "/dev/vhost-vsock", "/dev/net/tun", "/dev/loop-control", "block-loop")
_MODULES = ("loop", "squashfs", "overlay", "ext4", "tun", "vhost_vsock")
_TEXT = """\
# Written by `metalmark runner install-service`, which replaces it; put changes into a drop-in (systemctl edit).
[Unit]
Description=Metalmark runner: takes benchmark jobs from {host_comment}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
# Sandboxes need these; what this kernel does not have, `metalmark host doctor` tells.
ExecStartPre=-+/sbin/modprobe -q -a {modules}
ExecStart={command}
Environment={environment}
LoadCredential={credential}:{key_file}
Restart=always
RestartSec=5
RestartPreventExitStatus={refused}
TimeoutStartSec={start_s}
# The job in hand is ended first; then results are sent and the host is put back.
TimeoutStopSec={stop_s}
WatchdogSec={watchdog_s}
KillMode=mixed
UMask=0077
LimitNOFILE=65536
LimitMEMLOCK=infinity

CapabilityBoundingSet={capabilities}
ProtectSystem=strict
ReadOnlyPaths=/proc/sys /sys
ReadWritePaths=/sys/fs/cgroup {writable}
RuntimeDirectory=metalmark
RuntimeDirectoryMode=0700
# What a killed runner left there is found and removed by its next start.
RuntimeDirectoryPreserve=yes
ProtectHome=yes
PrivateTmp=yes
KeyringMode=private
DevicePolicy=closed
{devices}

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, kw_only=True)
class ServiceUnit:
    """What differs from one machine's unit to another's."""

    root: Path
    """Folder of the install (``/opt/metalmark``)."""
    state: Path
    cache: Path
    host: str
    """URL of the server."""
    runner: str
    """UUID or slug of the runner."""
    key_file: Path
    """Holds the runner's key and nothing else. Only systemd reads it."""
    drain_timeout_s: int
    """How long the job in hand may go on when the service is stopped."""
    options: tuple[str, ...] = ()
    """More options of ``runner up``."""

    @property
    def stop_timeout_s(self) -> int:
        """How long systemd waits for the runner's end."""
        return self.drain_timeout_s + _STOP_GRACE_S

    def arguments(self) -> tuple[str, ...]:
        """Return the command line that the launcher gets."""
        return ("runner", "up", "--drain-timeout", str(self.drain_timeout_s), *self.options)

    def text(self) -> str:
        """Return the unit.

        Raises:
            InputError: A value has characters that no unit can hold.
        """
        words = (str(self.root / LAUNCHER), *self.arguments())
        variables = {"METALMARK_HOST": self.host, "METALMARK_RUNNER": self.runner}
        return _TEXT.format(
            host_comment=_plain("--host", self.host).replace("%", "%%"),
            modules=" ".join(_MODULES),
            command=" ".join(_word(word) for word in words),
            environment=" ".join(_quoted(f"{name}={value}") for name, value in variables.items()),
            credential=RUNNER_CREDENTIAL_NAME,
            key_file=_path("--key-file", self.key_file),
            refused=EXIT_REFUSED,
            start_s=_START_S,
            stop_s=self.stop_timeout_s,
            watchdog_s=_WATCHDOG_S,
            capabilities=" ".join(_CAPABILITIES),
            writable=" ".join(_path("folder", folder) for folder in (self.root, self.state, self.cache)),
            devices="\n".join(f"DeviceAllow={device} rw" for device in _DEVICES),
        )


def _plain(field: str, text: str) -> str:
    if not text or not text.isprintable():
        raise InputError(field, text, "a unit of systemd can hold printable characters only")
    return text


def _path(field: str, path: Path) -> str:
    text = _plain(field, str(path))
    if any(letter in text for letter in " :\\\"'%") or not path.is_absolute():
        raise InputError(field, text, "a unit needs an absolute path without spaces, colons, quotes and percent signs")
    return text


def _quoted(text: str) -> str:
    """Quote a word of a unit (systemd.syntax(7)), with specifiers taken literally."""
    escaped = _plain("value", text).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _word(text: str) -> str:
    """Quote a word of a command line, where variables are replaced as well."""
    if text and all(letter.isalnum() or letter in "-_./=:," for letter in text):
        return text
    return _quoted(text).replace("$", "$$")
