"""Docker's own engine (Debian's docker.io), one for as long as a test wants it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

Docker = Callable[..., str]
"""Runs ``docker WORDS…`` and returns what it printed; with ``fails=True`` it has to fail, and this is its complaint."""
DOCKERFILE = """
FROM scratch
COPY busybox /bin/busybox
ENV FROM_DOCKER=yes
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["/bin/busybox", "echo"]
CMD ["hello"]
LABEL made.by=docker
"""


@contextmanager
def docker_engine(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Docker]:
    """Run an engine, and give the client of it.

    Args:
        folder: All that it keeps.
        environment: More variables, of engine and client.
    """
    if os.geteuid() != 0:
        pytest.skip("starting a Docker engine needs root")
    for name in ("docker", "dockerd", "unshare"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed (docker.io, util-linux)")
    before = _cgroups()
    socket = f"unix://{folder}/sock"
    more = {**os.environ, **(environment or {})}
    # In a mount namespace of its own, every mount of the engine goes when the engine goes.
    argv = ["unshare", "--mount", "--propagation", "private", "dockerd", "--bridge=none", "--iptables=false",
            "--ip6tables=false", "--storage-driver=vfs", "--data-root", folder / "data", "--exec-root", folder / "exec",
            "-p", folder / "pid", "-H", socket]  # fmt: skip

    def client(*words: str | Path, fails: bool = False) -> str:
        own = {**more, "DOCKER_HOST": socket, "DOCKER_CONFIG": str(folder), "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(
            ["docker", *map(str, words)], env=own, capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode != 0) is fails, f"docker {words}: {done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout.strip()

    with (folder / "log").open("wb") as log:
        engine = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True, env=more)
    try:
        _await_engine(client, engine, folder / "log")
        yield client
    finally:
        engine.terminate()
        try:
            engine.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(engine.pid, signal.SIGKILL)
            engine.wait()
        for cgroup in _cgroups() - before:
            with suppress(OSError):
                cgroup.rmdir()


def build(docker: Docker, context: Path, name: str = "team/app:v1", *words: str) -> str:
    """Build an image of busybox that greets, and return its name.

    Args:
        docker: The engine.
        context: An empty folder.
        name: Of the image.
        words: More of the command line.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed (busybox-static)")
    shutil.copy(busybox, context / "busybox")
    (context / "Dockerfile").write_text(DOCKERFILE)
    docker("build", "-q", "--network", "none", *words, "-t", name, context)
    return name


def _cgroups() -> set[Path]:
    top = Path("/sys/fs/cgroup")
    return {*top.glob("*/docker"), *top.glob("docker")}


def _await_engine(client: Docker, engine: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if engine.poll() is not None:
            pytest.skip(f"the Docker engine does not start here: {log.read_text()[-300:]}")
        with suppress(AssertionError):
            client("info")
            return
        time.sleep(0.1)
    pytest.skip("the Docker engine does not answer within 60 s")
