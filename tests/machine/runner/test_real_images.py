"""Images of other tools in a real sandbox: umoci from a Debian root, a registry with skopeo, docker itself."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.machine.runner.fresh_debian import base_system

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(600)]
START = [sys.executable, "-c", "from metalmark.cli.main import main; main()"]
TAG = "127.0.0.1:{port}/debian/root:1"


def need(*tools: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    for tool in tools:
        if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            pytest.skip(f"{tool} is not installed")


def tool(*argv: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=300, cwd=cwd, env={**os.environ, **(env or {})}
    )
    assert done.returncode == 0, f"{argv}: {done.stderr[-2000:]}"
    return done.stdout


def benchmark(home: Path, image: str, *words: str, sandbox: str = "container") -> dict[str, object]:
    """Run it and return the first iteration, with the image's digest."""
    done = subprocess.run(
        [*START, "runner", "run", image, "--json", "--sandbox", sandbox, *words],
        env={**os.environ, "METALMARK_HOME": str(home)}, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr.decode()
    result = json.loads(done.stdout)
    assert result["error"] is None, result["error"]
    return {**result["iterations"][0], "digest": result["image"]["digest"], "run_phases": result["phases"]}


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout that umoci made of a whole Debian root."""
    need("umoci", "mksquashfs")
    folder = tmp_path_factory.mktemp("debian")
    base = base_system(folder)
    layout = folder / "layout"
    tool("umoci", "init", "--layout", str(layout))
    tool("umoci", "new", "--image", f"{layout}:1")
    tool("umoci", "raw", "add-layer", "--image", f"{layout}:1", str(base))
    tool("umoci", "config", "--image", f"{layout}:1", "--config.cmd", "/bin/bash", "--config.env", "LANG=C.UTF-8")
    return layout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def test_umoci_image_of_a_debian_root(home: Path, debian: Path) -> None:
    script = (
        "set -e; . /etc/os-release; echo $ID; id -un;"
        " dpkg-query -W -f '${Package}\\n' bash; mktemp; ls -ld /tmp | cut -c1-10"
    )
    ran = benchmark(home, str(debian), "--", "/bin/bash", "-c", script)
    lines = ran["stdout"]["text"].splitlines()  # type: ignore[index]
    assert ran["exit_code"] == 0, ran
    assert (lines[:3], lines[4]) == (["debian", "root", "bash"], "drwxrwxrwt")


def test_second_run_finds_everything_in_the_cache(home: Path, debian: Path) -> None:
    benchmark(home, str(debian), "--", "true")
    before = cached(home)
    benchmark(home, str(debian), "--", "true")
    # How fast that is, benchmarks/bench_cached_run.py says.
    assert cached(home) == before


def cached(home: Path) -> dict[Path, tuple[int, int]]:
    """The large files of the cache: what is fetched or built again is another file."""
    found = {path: path.stat() for path in (home / "cache").rglob("*") if path.is_file() and not path.is_symlink()}
    assert found
    return {path: (seen.st_ino, seen.st_size) for path, seen in found.items() if seen.st_size > 1_000_000}


def test_same_image_through_a_registry(home: Path, debian: Path, tmp_path: Path) -> None:
    need("docker-registry", "skopeo")
    with registry(tmp_path) as port:
        reference = TAG.format(port=port)
        tool("skopeo", "copy", "--dest-tls-verify=false", f"oci:{debian}:1", f"docker://{reference}")
        ran = benchmark(home, reference, "--", "/bin/bash", "-c", "echo from the registry")
        assert ran["stdout"]["text"] == "from the registry\n"  # type: ignore[index]
        by_digest = f"{reference.rpartition(':')[0]}@{ran['digest']}"
    # The registry is gone: what is cached by digest needs none.
    ran = benchmark(home, by_digest, "--", "/bin/echo", "from the cache")
    assert ran["stdout"]["text"] == "from the cache\n"  # type: ignore[index]


def test_debian_root_in_a_microvm(home_with_kernel: Path, debian: Path) -> None:
    need("qemu-system-x86_64")
    ran = benchmark(home_with_kernel, str(debian), "--", "/usr/bin/python3", "-c", "print(6 * 7)", sandbox="qemu")
    assert (ran["outcome"], ran["stdout"]["text"]) == ("exited", "42\n")  # type: ignore[index]


def test_archive_that_docker_saved(home: Path, tmp_path: Path) -> None:
    need("docker", "dockerd", "busybox")
    (tmp_path / "context").mkdir()
    shutil.copy("/bin/busybox", tmp_path / "context/busybox")
    (tmp_path / "context/Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENV WORD=docker\nWORKDIR /work\n'
        'RUN ["/bin/busybox", "sh", "-c", "echo built > built"]\n'
        'ENTRYPOINT ["/bin/busybox", "sh", "-c"]\nCMD ["/bin/busybox cat built; echo $WORD"]\n'
    )  # fmt: skip
    archive, unpacked = tmp_path / "saved.tar", tmp_path / "unpacked"
    with docker_engine(tmp_path) as docker:
        environment = {"DOCKER_BUILDKIT": "0", "HOME": str(tmp_path)}
        tool(*docker, "build", "--network", "none", "-t", "mm:1", str(tmp_path / "context"), env=environment)
        tool(*docker, "save", "-o", str(archive), "mm:1")
    unpacked.mkdir()
    tool("tar", "-C", str(unpacked), "-xf", str(archive))
    for image in (archive, unpacked):
        ran = benchmark(home, str(image))
        assert (ran["exit_code"], ran["stdout"]["text"]) == (0, "built\ndocker\n"), ran  # type: ignore[index]


@contextmanager
def registry(folder: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "registry.yml"
    config.write_text(
        "version: 0.1\n"
        f"storage:\n  filesystem:\n    rootdirectory: {folder}/registry\n"
        f"http:\n  addr: 127.0.0.1:{port}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: answers(port))
        yield port
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def docker_engine(folder: Path) -> Iterator[list[str]]:
    """A Docker engine of the test's own, without a network of its own."""
    short = Path(f"/tmp/mm-docker-{os.getpid()}")
    short.mkdir()
    address = f"unix://{short}/docker.sock"
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            ["dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs", "-H", address,
             "--data-root", str(short / "data"), "--exec-root", str(short / "exec"), "-p", str(short / "pid")],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_for(
            lambda: subprocess.run(["docker", "-H", address, "info"], capture_output=True, check=False).returncode == 0
        )
        yield ["docker", "-H", address]
    finally:
        process.terminate()
        process.wait(60)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if (place := line.split()[4]).startswith(str(short)):
                subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(short)
        for group in sorted(Path("/sys/fs/cgroup").glob("**/docker"), reverse=True):
            if group.is_dir() and not any(path.is_dir() for path in group.iterdir()):
                group.rmdir()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: object, limit_s: float = 60) -> None:
    assert callable(condition)
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come up"
        time.sleep(0.1)
