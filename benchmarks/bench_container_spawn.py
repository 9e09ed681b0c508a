#!/usr/bin/env python3
"""From spawn to the exit of ``true``: a container box against bare ``runc run`` of a bundle with the same settings.

Interleaved, medians. The aim is at most 60 ms more than bare runc: in these the box mounts its squashfs, makes an ext4
scratch and an overlay over both, sets its limits, starts the agent, and takes everything down again. Beside both, the
wall time of the whole command. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from metalmark.model import MIB, Resources, RootfsMode, SandboxName
from metalmark.sandbox import BoxRecord, BoxSpec, Driver, DriverSettings, make_driver
from metalmark.sandbox.container_config import MAX_OPEN_FILES, ContainerPlan, container_config
from metalmark.system import Folders, folders, max_open_files, read_layout
from metalmark.testing.busybox_root import busybox_squashfs
from metalmark.wire import Exec

AIM_MS = 60.0
RESOURCES = Resources(memory_bytes=256 * MIB, disk_bytes=256 * MIB)


def make_bundle(folder: Path, tree: Path, cgroup: str) -> Path:
    """A bundle with a box's own configuration, but ``true`` for a process and a plain folder for a root."""
    bundle = folder / "bundle"
    bundle.mkdir()
    plan = ContainerPlan(
        root=tree, agent=Path("/bin/busybox"), agent_argv=(), hostname="bench", resources=RESOURCES, cgroup=cgroup,
        network_namespace=Path("/"), machine=os.uname().machine, open_files=min(MAX_OPEN_FILES, max_open_files()),
    )  # fmt: skip
    config = json.loads(json.dumps(container_config(plan)))
    config["process"]["args"] = ["/bin/true"]
    for namespace in config["linux"]["namespaces"]:
        namespace.pop("path", None)
    (bundle / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return bundle


def bare(bundle: Path, state: Path) -> float:
    began = time.perf_counter()
    subprocess.run(["runc", "--root", str(state), "run", "--bundle", str(bundle), f"mmbench-{os.getpid()}"], check=True)
    return time.perf_counter() - began


async def box(driver: Driver, places: Folders, image: Path, spans: dict[str, list[float]]) -> float:
    with BoxRecord.open(places, f"bench-{os.urandom(4).hex()}") as record:
        spec = BoxSpec(
            name=record.name, root=image, rootfs=RootfsMode.OVERLAY, workspace=record.workspace,
            disk_folder=record.disk, resources=RESOURCES, cpus=(max(os.sched_getaffinity(0)),),
        )  # fmt: skip
        async with driver.create(spec) as made:
            began = time.perf_counter()
            await made.start()
            execution = await made.exec(Exec(argv=("/bin/true",), stream_bytes=1024), lambda _stream, _data: None)
            ended = await execution.wait()
            took = time.perf_counter() - began
            assert ended.code == 0
        spans["box: until everything is taken down"].append(time.perf_counter() - began)
    return took


def pack(folder: Path, tree: Path) -> Path | None:
    command = Path(sys.executable).with_name("metalmark")
    layout = folder / "layout"
    argv = [str(command), "image", "pack", str(tree), "--entrypoint", "/bin/true", "-o", str(layout)]
    return layout if subprocess.run(argv, capture_output=True, check=False).returncode == 0 else None


def whole(layout: Path, home: Path) -> float:
    command = Path(sys.executable).with_name("metalmark")
    began = time.perf_counter()
    argv = [str(command), "-q", "runner", "run", str(layout), "--sandbox", "container"]
    done = subprocess.run(argv, capture_output=True, check=False, env={**os.environ, "METALMARK_HOME": str(home)})
    if done.returncode != 0:
        sys.exit(done.stderr.decode())
    return time.perf_counter() - began


async def series(rounds: int, folder: Path) -> dict[str, list[float]]:
    image = await busybox_squashfs(folder / "image.squashfs", folder)
    tree = folder / "tree"
    places = folders({"METALMARK_HOME": str(folder / "home")})
    driver = make_driver(SandboxName.CONTAINER, DriverSettings(folders=places, oci_runtime="runc"))
    found = await driver.probe()
    if not found.usable:
        sys.exit(f"containers do not work here: {found.reason}")
    cgroup = f"/mmbench-{os.getpid()}"
    bundle = make_bundle(folder, tree, cgroup)
    layout = pack(folder, tree)
    found_s: dict[str, list[float]] = {"bare runc run": [], "box: spawn to exit": []}
    found_s["box: until everything is taken down"] = []
    try:
        for number in range(rounds + 1):
            results = {"bare runc run": bare(bundle, folder / "state")}
            results["box: spawn to exit"] = await box(driver, places, image, found_s)
            if layout is not None:
                results["metalmark runner run, whole command"] = whole(layout, folder / "home")
            if number == 0:
                found_s["box: until everything is taken down"].clear()  # the first of each warms the caches
                continue
            for name, seconds in results.items():
                found_s.setdefault(name, []).append(seconds)
    finally:
        for base in read_layout().hierarchies:
            if (base / cgroup[1:]).is_dir():
                (base / cgroup[1:]).rmdir()
    return found_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds")
    rounds = 3 if parser.parse_args().quick else 31
    if os.geteuid() != 0 or shutil.which("runc") is None:
        sys.exit("needs root and runc")
    with tempfile.TemporaryDirectory(prefix="metalmark-bench-") as name:
        found = anyio.run(series, rounds, Path(name))
    floor_ms = statistics.median(found["bare runc run"]) * 1e3
    print(f"{'':38} {'median':>9} {'least':>9} {'more':>9}  aim")
    for name, seconds in found.items():
        median_ms = statistics.median(seconds) * 1e3
        aim = f"at most {AIM_MS:.0f} ms more" if name == "box: spawn to exit" else ""
        line = f"{name:38} {median_ms:6.1f} ms {min(seconds) * 1e3:6.1f} ms {median_ms - floor_ms:6.1f} ms  {aim}"
        print(line.rstrip())


if __name__ == "__main__":
    main()
