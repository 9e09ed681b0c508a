"""Scenarios on isolation and limits."""

from __future__ import annotations

from dataclasses import replace

from metalmark.model import MIB, JobSpec, Outcome, OutputLimits, Resources
from metalmark.runner.selftest_checks import both, ended, ok, prints, shows
from metalmark.runner.selftest_scenario import MICROVM, Scenario, Seen, expect
from metalmark.system import realtime_ns

_JOB = JobSpec(image="", timeout_s=60)
_FLOOD = 20_000_000
_DISK_BYTES = 64 * MIB
_VCPUS = 4
_TMP, _SHM = "/tmp/a", "/dev/shm/b"  # noqa: S108  # paths in the box


def _flood(seen: Seen) -> None:
    ok(seen)
    out = seen.only.stdout
    expect(out.kept_bytes == 10 * MIB, f"{out.kept_bytes} bytes were kept")
    expect(out.truncated and out.written_bytes == _FLOOD, f"written {out.written_bytes}, truncated {out.truncated}")


def _truncated(seen: Seen) -> None:
    ok(seen)
    expect(seen.only.stdout.kept_bytes == 1024, f"{seen.only.stdout.kept_bytes} bytes were kept")
    expect(seen.only.stdout.truncated, "it is not flagged")


def _no_network(seen: Seen) -> None:
    shows("interfaces=lo")(seen)
    expect("no connection" in seen.out, f"something answered: {seen.out!r}")


def _network(seen: Seen) -> None:
    ok(seen)
    names = seen.out.splitlines()[0].removeprefix("interfaces=").split(",")
    expect(len(names) > 1, f"there is no interface but {names}")
    expect("no connection" in seen.out, f"a port of this host's loopback answered: {seen.out!r}")


def _few_processes(seen: Seen) -> None:
    ok(seen)
    # A microVM has its kernel's threads beside the agent's; none of this host's processes is among them.
    most = 200 if seen.sandbox in MICROVM else 50
    expect(seen.figure("pids") <= most, f"{seen.figure('pids')} processes are visible")


def _disk(seen: Seen) -> None:
    ok(seen)
    expect(seen.figure("df") <= 100_000_000, f"the root has {seen.figure('df')} bytes")
    full = next((line for line in seen.out.splitlines() if line.startswith("full after ")), "")
    expect("No space left" in full, f"it was not filled: {seen.out!r}")
    expect(int(full.split()[2].rstrip(":")) <= _DISK_BYTES, full)


def _port_refused(seen: Seen) -> None:
    expect("read a port" not in seen.out.splitlines(), "a port of the machine was read")
    ended(Outcome.SIGNALED, 139)(seen)


def _pids(seen: Seen) -> None:
    ok(seen)
    expect(seen.figure("forked") < 5000, f"{seen.figure('forked')} processes were made")


def _clock(seen: Seen) -> None:
    ok(seen)
    expect(abs(seen.figure("clock") - realtime_ns() / 1e9) < 60, f"the box says it is {seen.figure('clock')}")


def _memory_told(seen: Seen) -> None:
    ok(seen)
    expect(seen.result.limits.memory_bytes == 128 * MIB, f"{seen.result.limits.memory_bytes}")


def _disk_told(seen: Seen) -> None:
    ok(seen)
    expect(seen.result.limits.disk_bytes == _DISK_BYTES, f"{seen.result.limits.disk_bytes}")


LIMIT_SCENARIOS = (
    Scenario(
        name="writable_filesystem",
        about="the root can be written",
        words=("write", "/written", "content", ";", "cat", "/written"),
        check=prints("content"),
    ),
    Scenario(
        name="rootfs_writable",
        about="temporary folders and shared memory can be written",
        words=("write", _TMP, "one ", ";", "write", _SHM, "two", ";", "cat", _TMP, ";", "cat", _SHM),
        check=prints("one two"),
    ),
    Scenario(
        name="multi_cpu",
        about="four virtual CPUs",
        words=("cpus",),
        spec=replace(_JOB, resources=Resources(vcpus=_VCPUS)),
        cpus=_VCPUS,
        check=prints(f"cpus={_VCPUS}\n"),
    ),
    Scenario(
        name="two_cpus",
        about="two virtual CPUs",
        words=("cpus",),
        spec=replace(_JOB, resources=Resources(vcpus=2)),
        cpus=2,
        check=prints("cpus=2\n"),
    ),
    Scenario(name="cpu_count_visible", about="one virtual CPU", words=("cpus",), check=prints("cpus=1\n")),
    Scenario(
        name="no_network_access",
        about="no interface but loopback, and no way out",
        words=("interfaces", ";", "connect", "192.0.2.1", "80"),
        check=_no_network,
    ),
    Scenario(
        name="network_enabled",
        about="--network gives an interface, and this host's own services stay out of reach",
        words=("interfaces", ";", "connect", "127.0.0.1", "22"),
        spec=replace(_JOB, network=True),
        check=_network,
        tolerates=frozenset(("ToolMissing", "SandboxUnavailable")),
    ),
    Scenario(
        name="output_flood",
        about="20 MB of output against a bound of 10 MiB",
        words=("flood", str(_FLOOD)),
        spec=replace(_JOB, timeout_s=120, output_limits=OutputLimits(stream_bytes=10 * MIB)),
        check=_flood,
    ),
    Scenario(
        name="max_output_size_truncation",
        about="50 KB of output against a bound of 1024 bytes",
        words=("flood", "50000"),
        spec=replace(_JOB, output_limits=OutputLimits(stream_bytes=1024)),
        check=_truncated,
    ),
    Scenario(
        name="uid_namespace_isolation", about="root in the box", words=("id",), check=prints("uid=0 gid=0 groups=\n")
    ),
    Scenario(
        name="proc_mount_works",
        about="/proc, /sys and /dev are there",
        words=("cat", "/proc/self/comm", ";", "list", "/sys/class", ";", "cat", "/dev/null"),
        check=both(shows("selftest", "net"), ok),
    ),
    Scenario(
        name="pid_namespace_procfs",
        about="/proc/version",
        words=("cat", "/proc/version"),
        check=both(ok, lambda seen: expect("Linux version" in seen.out, seen.out)),
    ),
    Scenario(
        name="pid_namespace_isolation",
        about="this host's processes cannot be seen",
        words=("pids",),
        check=_few_processes,
    ),
    Scenario(
        name="iopl_dropped_before_exec",
        about="the ports of the machine cannot be read",
        words=("ioport",),
        check=_port_refused,
        machine="x86_64",
    ),
    Scenario(
        name="memory_size_visible",
        about="--memory 128 is in force",
        words=("echo", "x"),
        spec=replace(_JOB, resources=Resources(memory_bytes=128 * MIB)),
        check=_memory_told,
    ),
    Scenario(
        name="memory_limit_enforced",
        about="a benchmark that takes more memory than it has ends out_of_memory",
        words=("eat", str(512 * MIB)),
        spec=replace(_JOB, resources=Resources(memory_bytes=192 * MIB)),
        check=ended(Outcome.OUT_OF_MEMORY, 137),
    ),
    Scenario(
        name="disk_size_override",
        about="--disk 64 is in force",
        words=("echo", "x"),
        spec=replace(_JOB, resources=Resources(disk_bytes=_DISK_BYTES)),
        check=_disk_told,
    ),
    Scenario(
        name="disk_limit_enforced",
        about="a disk of 64 MiB is full after that",
        words=("df", "/", ";", "fill", "/big"),
        spec=replace(_JOB, resources=Resources(disk_bytes=_DISK_BYTES)),
        check=_disk,
    ),
    Scenario(
        name="pids_limit_enforced",
        about="forking without end is stopped",
        words=("fork", "100000"),
        check=_pids,
    ),
    Scenario(name="clock_is_set", about="the box knows the time of day", words=("clock",), check=_clock),
    Scenario(
        name="power_off_from_inside",
        about="a guest that powers itself off is a fault, not a result",
        words=("poweroff",),
        sandboxes=MICROVM,
        elsewhere="without a kernel of its own a benchmark cannot power anything off",
        check=ended(Outcome.INFRASTRUCTURE, 125),
    ),
)
