from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from metalmark.model import MIB, Resources
from metalmark.sandbox.container_config import AGENT_PATH, ContainerPlan, container_config

PLAN = ContainerPlan(
    root=Path("/w/root"),
    agent=Path("/pkg/agent"),
    agent_argv=("serve", "3"),
    hostname="h",
    resources=Resources(memory_bytes=64 * MIB),
    cgroup="/metalmark/b/job",
    network_namespace=Path("/w/netns"),
    machine="x86_64",
    open_files=4096,
)


def _config(**changes: object) -> dict[str, object]:
    plan = dataclasses.replace(PLAN, **changes)  # type: ignore[arg-type]
    return json.loads(json.dumps(container_config(plan)))  # type: ignore[no-any-return]


def test_the_agent_is_the_first_process_and_cannot_be_written() -> None:
    config = _config()
    process = config["process"]
    assert process["args"] == [AGENT_PATH, "serve", "3"]  # type: ignore[index]
    mounts = {mount["destination"]: mount for mount in config["mounts"]}  # type: ignore[index, attr-defined]
    assert mounts[AGENT_PATH]["source"] == "/pkg/agent"
    assert {"bind", "ro"} <= set(mounts[AGENT_PATH]["options"])
    order = [mount["destination"] for mount in config["mounts"]]  # type: ignore[index, attr-defined]
    assert order.index("/dev") < order.index(AGENT_PATH), "it lies on the box's own /dev"


def test_every_namespace_is_the_boxs_own() -> None:
    kinds = {item["type"]: item for item in _config()["linux"]["namespaces"]}  # type: ignore[index, call-overload]
    assert set(kinds) == {"pid", "ipc", "uts", "mount", "cgroup", "network"}
    assert kinds["network"]["path"] == "/w/netns"
    assert all("path" not in item for name, item in kinds.items() if name != "network")


def test_no_capability_lets_it_out() -> None:
    sets = _config()["process"]["capabilities"]  # type: ignore[index, call-overload]
    for names in sets.values():
        assert not {"CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SYS_PTRACE", "CAP_NET_ADMIN", "CAP_SYS_MODULE"} & set(names)
    assert "ambient" not in sets, "what an ordinary user of the image starts has none"


def test_the_kernels_secrets_are_covered_and_sys_cannot_be_written() -> None:
    config = _config()
    linux = config["linux"]
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(linux["maskedPaths"])  # type: ignore[index]
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(linux["readonlyPaths"])  # type: ignore[index]
    mounts = {mount["destination"]: mount["options"] for mount in config["mounts"]}  # type: ignore[index, attr-defined]
    assert "ro" in mounts["/sys"]
    assert "ro" in mounts["/sys/fs/cgroup"]
    assert f"size={32 * MIB}" in mounts["/dev/shm"]


def test_system_calls_are_refused_by_name_alone_except_new_user_namespaces() -> None:
    for machine, native in (("x86_64", "SCMP_ARCH_X86_64"), ("aarch64", "SCMP_ARCH_AARCH64")):
        seccomp = _config(machine=machine)["linux"]["seccomp"]  # type: ignore[index, call-overload]
        assert seccomp["architectures"][0] == native
        assert {"mount", "bpf", "kexec_load", "open_by_handle_at"} <= set(seccomp["syscalls"][0]["names"])
        # A filter that looks at arguments would make the kernel run it for each call of the benchmark.
        assert [rule["names"] for rule in seccomp["syscalls"] if "args" in rule] == [["clone"]]
    assert "seccomp" not in _config(machine="riscv64")["linux"]  # type: ignore[operator]


def test_limits_are_left_to_the_cgroup_that_is_there() -> None:
    config = _config()
    linux = config["linux"]
    assert linux["cgroupsPath"] == "/metalmark/b/job"  # type: ignore[index, call-overload]
    assert set(linux["resources"]) == {"devices"}  # type: ignore[index, call-overload]
    assert config["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 4096, "hard": 4096}]  # type: ignore[index, call-overload]
