"""The Firecracker driver against a fake that behaves like it. No test here boots a Firecracker guest."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from metalmark.model import (
    MIB,
    BoxLost,
    InputError,
    MetalmarkError,
    Phase,
    PhaseTimeout,
    ProtocolError,
    Resources,
    RootfsMode,
    SandboxUnavailable,
    StableError,
)
from metalmark.sandbox import BoxSpec, DriverSettings, KvmProbe, KvmState
from metalmark.sandbox import firecracker_api as api_module
from metalmark.sandbox.firecracker import DRIVERS, FirecrackerBox, FirecrackerDriver
from metalmark.sandbox.firecracker_process import vcpu_threads
from metalmark.sandbox.kernel import FORMAT
from metalmark.sandbox.leftovers import BoxRecord
from metalmark.system import find_tool, folders
from metalmark.testing.leftover_listing import list_leftovers, nothing_left
from metalmark.wire import Exec, Fields, SetupTag

OURS = (f"fake-{os.getpid()}",)
pytestmark = pytest.mark.anyio
FAKE = Path(__file__).parent / "fake_firecracker.py"


@pytest.fixture
def settings(tmp_path: Path) -> DriverSettings:
    """An installation with the fake, a kernel that nobody boots, and an agent that nobody runs."""
    find_tool("mke2fs")
    program = tmp_path / "firecracker"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(FAKE))} "$@"\n')
    program.chmod(0o755)
    kernel = tmp_path / "home/state/kernels/6.1.177"
    kernel.mkdir(parents=True)
    (kernel / "image").write_bytes(b"\x7fELF")
    (kernel / "kernel.json").write_text(
        json.dumps(
            {"format": FORMAT, "release": "6.1.177", "machine": "x86_64", "modules": {}, "builtin": list(DRIVERS)}
        )
    )
    agent = tmp_path / "agent"
    agent.write_bytes(b"agent")
    (tmp_path / "root.sqfs").write_bytes(bytes(4096))
    return DriverSettings(
        folders=folders({"METALMARK_HOME": str(tmp_path / "home")}),
        machine="x86_64",
        firecracker=program,
        agent=agent,
    )


@asynccontextmanager
async def made(settings: DriverSettings, **changes: object) -> AsyncIterator[tuple[FirecrackerBox, BoxSpec]]:
    resources = Resources(vcpus=2, memory_bytes=128 * MIB, disk_bytes=16 * MIB)
    with BoxRecord.open(settings.folders, OURS[0]) as record:
        values: dict[str, object] = {
            "root": settings.folders.state.parents[1] / "root.sqfs", "rootfs": RootfsMode.OVERLAY,
            "resources": resources, **changes,
        }  # fmt: skip
        spec = BoxSpec(name=record.name, workspace=record.workspace, disk_folder=record.disk, **values)  # type: ignore[arg-type]
        async with FirecrackerDriver(settings).create(spec) as box:
            assert isinstance(box, FirecrackerBox)
            yield box, spec


async def test_life_of_a_box_with_a_fake_firecracker(settings: DriverSettings, tmp_path: Path) -> None:
    before = list_leftovers(tmp_path, box_prefixes=OURS)
    async with made(settings, cpus=(0,), helper_cpus=(0,)) as (box, spec):
        await box.start()
        process = box._process
        assert process is not None
        assert process.child is not None
        # What the guest's serial port prints goes nowhere: it could fill the disk.
        assert Path(f"/proc/{process.child.pid}/fd/1").readlink() == Path(os.devnull)
        threads = vcpu_threads(process.child.pid)
        assert len(threads) == 2
        assert all(os.sched_getaffinity(thread) == {0} for thread in threads)
        lines = (spec.workspace / "requests.jsonl").read_text().splitlines()
        assert [json.loads(line)[0] for line in lines] == [
            "/machine-config", "/boot-source", "/drives/disk0", "/drives/disk1", "/vsock", "/actions"
        ]  # fmt: skip
        setup = Fields((spec.workspace / "setup.bin").read_bytes())
        assert (setup.text(SetupTag.ROOT), setup.text(SetupTag.SCRATCH)) == ("/dev/vda", "/dev/vdb")
        out = bytearray()
        command = await box.exec(Exec(argv=("true",), stream_bytes=100), lambda stream, data: out.extend(data))
        assert (await command.wait()).code == 3
        assert out == b"from a fake\n"
        assert {span.phase for span in box.phases} == {Phase.SPAWN, Phase.KERNEL, Phase.AGENT}
        await box.stop()
        assert box.facts.details["firecracker"] == "1.15.1"
        assert box.facts.kernel == "6.1.177-fake"
    assert await nothing_left(before, tmp_path, box_prefixes=OURS) == {}


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("refuse", StableError, "kernel file cannot be opened"),
        ("die", MetalmarkError, "Firecracker"),
        ("huge", ProtocolError, "over 65536 bytes"),
        ("silent", PhaseTimeout, "0.5 s"),
        ("no-agent", PhaseTimeout, "kernel"),
    ],
)
async def test_faults_of_a_fake_firecracker(
    settings: DriverSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    kind: type[MetalmarkError],
    words: str,
) -> None:
    monkeypatch.setenv("FAKE_FIRECRACKER", fault)
    original = api_module.FirecrackerApi.__init__
    monkeypatch.setattr(
        api_module.FirecrackerApi,
        "__init__",
        lambda self, path: original(self, path, limit_s=0.5 if fault == "silent" else 5.0),
    )
    before = list_leftovers(tmp_path, box_prefixes=OURS)
    async with made(settings, boot_timeout_s=6.0) as (box, _):
        with pytest.raises(kind, match=words):
            await box.start()
    assert await nothing_left(before, tmp_path, box_prefixes=OURS) == {}


async def test_fake_firecracker_killed_under_a_box(settings: DriverSettings) -> None:
    async with made(settings) as (box, _):
        await box.start()
        box._kill()
        with pytest.raises(BoxLost):
            await (await box.exec(Exec(argv=("true",), stream_bytes=1), lambda stream, data: None)).wait()


async def test_long_home_is_no_matter_for_sockets(settings: DriverSettings, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    (tmp_path / "home").rename(deep / "home")
    (tmp_path / "root.sqfs").rename(deep / "root.sqfs")
    from dataclasses import replace

    moved = replace(settings, folders=folders({"METALMARK_HOME": str(deep / "home")}))
    async with made(moved) as (box, _):
        await box.start()


async def test_network_and_many_vcpus_are_refused(settings: DriverSettings) -> None:
    with pytest.raises(SandboxUnavailable, match="no network"):
        async with made(settings, network=True):
            pytest.fail("made")
    with pytest.raises(InputError, match="at most 32"):
        async with made(settings, resources=Resources(vcpus=33)):
            pytest.fail("made")


async def test_probe_needs_kvm_that_works(settings: DriverSettings) -> None:
    emulated = KvmProbe(state=KvmState.EMULATED, reason="it is emulated", hint="use another machine")
    found = await FirecrackerDriver(settings, kvm=emulated).probe()
    assert not found.usable
    assert "it is emulated" in found.reason
    works = KvmProbe(state=KvmState.OK, reason="a guest ran under it")
    assert (await FirecrackerDriver(settings, kvm=works).probe()).usable
