"""What cannot be run: a clear error that names the thing, and nothing left."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metalmark.model import ImageConfig, Platform
from metalmark.oci import PackRequest, PackSource, pack
from metalmark.sandbox import selftest_program

pytestmark = [pytest.mark.needs_root]
START = [sys.executable, "-c", "from metalmark.cli.main import main; main()"]


def layout(folder: Path, *, platform: str | None = None, cmd: tuple[str, ...] = ("/t", "exit", "0")) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    program = selftest_program(os.uname().machine)
    wanted = Platform.parse(platform) if platform else Platform.of_machine(os.uname().machine)
    (folder / "more").write_bytes(os.urandom(3_000_000))
    sources = (PackSource(path=program, target="/t"), PackSource(path=folder / "more"))
    request = PackRequest(sources=sources, config=ImageConfig(cmd=cmd), platform=wanted)
    return pack(request, folder / "layout", archive=False).path


def refusal(home: Path, *words: str, code: int = 125) -> str:
    """Run it, and return the error; it has to be one, with nothing on standard output and no box left."""
    done = subprocess.run(
        [*START, "runner", "run", *words], env={**os.environ, "METALMARK_HOME": str(home)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert [*(home / "run/boxes").glob("*"), *(home / "cache/boxes").glob("*")] == []
    assert not list((home / "state/spool").glob("*/in-use"))
    return done.stderr[done.stderr.index("error: ") :]


def test_wrong_platform(tmp_path: Path) -> None:
    image = layout(tmp_path, platform="linux/s390x")
    told = refusal(tmp_path / "home", str(image), "--sandbox", "container")
    assert "s390x" in told


def test_changed_blob_is_a_digest_mismatch(tmp_path: Path) -> None:
    image = layout(tmp_path)
    blob = max((image / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    told = refusal(tmp_path / "home", str(image), "--sandbox", "container")
    assert blob.name[:12] in told


def test_upper_case_digest_is_refused(tmp_path: Path) -> None:
    image = layout(tmp_path)
    index = json.loads((image / "index.json").read_text())
    index["manifests"][0]["digest"] = index["manifests"][0]["digest"].upper().replace("SHA256", "sha256")
    (image / "index.json").write_text(json.dumps(index))
    assert "lower-case hex" in refusal(tmp_path / "home", str(image), "--sandbox", "container")


def test_empty_command(tmp_path: Path) -> None:
    told = refusal(tmp_path / "home", str(layout(tmp_path, cmd=())), "--sandbox", "container")
    assert "nothing to run" in told
    assert "hint: give one after --" in told


def test_registry_that_wants_credentials(tmp_path: Path) -> None:
    with refusing_registry() as port:
        told = refusal(tmp_path / "home", f"127.0.0.1:{port}/team/app:1", "--sandbox", "container")
    assert f"127.0.0.1:{port}" in told


def test_memory_that_no_guest_boots_in(home_with_kernel: Path, tmp_path: Path) -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    (tmp_path / "image").mkdir()
    told = refusal(home_with_kernel, str(layout(tmp_path / "image")), "--sandbox", "qemu", "--memory", "16", "-q")
    assert "--memory" in told


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--sandbox", "none"), "--danger-allow-no-sandbox"),
        (("--sandbox", "container", "--oci-runtime", "/nonexistent/runtime"), "/nonexistent/runtime"),
    ],
)
def test_sandbox_that_does_not_work_here(tmp_path: Path, words: tuple[str, ...], part: str) -> None:
    assert part in refusal(tmp_path / "home", str(layout(tmp_path)), *words)


def test_no_space_for_the_cache(tmp_path: Path) -> None:
    image = layout(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(home)], check=True)
    try:
        told = refusal(home, str(image), "--sandbox", "container")
        assert "no space left" in told
        assert "hint: " in told
    finally:
        subprocess.run(["umount", str(home)], check=True)


def test_home_that_may_not_be_written(tmp_path: Path) -> None:
    image = layout(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,ro", "tmpfs", str(home)], check=True)
    try:
        assert "METALMARK_HOME" in refusal(home, str(image), "--sandbox", "container")
    finally:
        subprocess.run(["umount", str(home)], check=True)


@contextmanager
def refusing_registry() -> Iterator[int]:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="closed"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
