"""``metalmark runner run`` as a process, on real boxes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jsonschema
import pytest

from metalmark.model import ImageConfig, Platform
from metalmark.oci import PackRequest, PackSource, pack
from metalmark.sandbox import selftest_program
from metalmark.system import find_tool

pytestmark = [pytest.mark.needs_root]
ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs/reference/run-result.schema.json").read_text(encoding="utf-8"))
START = [sys.executable, "-c", "from metalmark.cli.main import main; main()"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    folder = tmp_path_factory.mktemp("image")
    (folder / "etc").mkdir()
    (folder / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (folder / "plain").write_text("text\n")
    program = selftest_program(os.uname().machine)
    request = PackRequest(
        sources=(PackSource(path=folder), PackSource(path=program, target="/t")),
        config=ImageConfig(entrypoint=("/t",)),
        platform=Platform.of_machine(os.uname().machine),
    )
    return f"oci:{pack(request, folder.parent / 'layout', archive=False).path}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    find_tool("mksquashfs")
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def nothing_left(home: Path) -> Iterator[None]:
    seen, over = set[str](), threading.Event()
    watch = threading.Thread(target=note_boxes, args=(home, seen, over))
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()
    assert boxes(home) == []
    assert not list((home / "state/spool").glob("*/in-use"))
    assert str(home) not in Path("/proc/self/mountinfo").read_text()
    assert not [loop for loop in Path("/sys/block").glob("loop*/loop/backing_file") if str(home) in loop.read_text()]
    assert [path for path in Path("/sys/fs/cgroup").glob("**/metalmark/run-*") if path.name in seen] == []


def note_boxes(home: Path, seen: set[str], over: threading.Event) -> None:
    """Note the names of all boxes until it is over: other tests may have boxes beside."""
    while not over.wait(0.02):
        seen.update(path.name for path in (home / "run/boxes").glob("*"))


def boxes(home: Path) -> list[Path]:
    return [*(home / "run/boxes").glob("*"), *(home / "cache/boxes").glob("*")]


def environment(home: Path) -> Mapping[str, str]:
    return {**os.environ, "METALMARK_HOME": str(home)}


def run(home: Path, image: str, *words: str, sandbox: str = "container") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*START, "runner", "run", image, "--sandbox", sandbox, *words],
        env=environment(home), capture_output=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--", "exit", "0"), 0),
        (("--", "exit", "7"), 7),
        (("--", "raise", "15"), 143),
        (("--timeout", "1", "--", "sleep", "60"), 124),
        (("--entrypoint", "/none"), 127),
        (("--entrypoint", "/plain"), 126),
        (("--user", "ghost", "--", "id"), 125),
        (("--workdir", "/none", "--", "id"), 125),
        (("--iter", "2", "--allow-failure", "--", "exit", "7"), 0),
        (("--vcpus", "255", "--", "id"), 2),
        (("--cpus", "4000", "--", "id"), 2),
        (("--platform", "linux/s390x", "--", "id"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_exit_codes_as_documented(home: Path, image: str, words: tuple[str, ...], code: int) -> None:
    done = run(home, image, *words)
    assert done.returncode == code, done.stderr.decode()
    if code in {125, 126, 127, 2}:
        told = done.stderr.decode()
        assert words[1] in told, "the message names the value"
        assert "Traceback" not in told


@pytest.mark.parametrize("sandbox", ["container", "qemu"])
def test_a_benchmark_has_all_of_its_time(home: Path, home_with_kernel: Path, image: str, sandbox: str) -> None:
    place = home if sandbox == "container" else home_with_kernel
    done = run(place, image, "--json", "--timeout", "1", "--", "sleep", "60", sandbox=sandbox)
    [iteration] = json.loads(done.stdout)["iterations"]
    assert (done.returncode, iteration["outcome"]) == (124, "timed_out"), done.stderr.decode()
    # Of its end a busy machine makes more; that it comes early would be our doing.
    assert 1 <= iteration["wall_s"] < 10


def test_streams_are_the_benchmarks_own_bytes(home: Path, image: str) -> None:
    done = run(home, image, "-q", "--", "bytes", "00ff0a", ";", "err", "to stderr")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\x00\xff\n", b"to stderr\n")


def test_json_is_one_object_that_the_schema_describes(home: Path, image: str) -> None:
    done = run(home, image, "--json", "--iter", "2", "--output", "/r*", "--", "bytes", "ff", ";", "write", "/r1", "x")
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    jsonschema.validate(result, SCHEMA)
    assert result["verdict"] == "measured"
    assert [iteration["iteration"] for iteration in result["iterations"]] == [1, 2]
    first = result["iterations"][0]
    assert (first["stdout"]["text"], first["stdout"]["base64"]) == ("�", "/w==")
    assert first["output"]["files"][0]["text"] == "x"
    assert {span["phase"] for span in first["phases"]} >= {"spawn", "kernel", "agent", "exec", "collect"}
    assert b"\xff" in done.stderr, "live output goes to standard error"


def test_table_has_every_column(home: Path, image: str) -> None:
    told = run(home, image, "--", "echo", "x").stderr.decode()
    header = next(line for line in told.splitlines() if line.startswith("#"))
    assert header.split() == [
        "#", "outcome", "exit", "wall", "user", "system", "peak", "spawn", "kernel", "agent", "exec", "collect",
    ]  # fmt: skip
    assert "pull" in told
    assert "rootfs" in told
    assert "sandbox: container: " in told


def test_save_keeps_everything_and_nothing_outside(home: Path, image: str, tmp_path: Path) -> None:
    done = run(
        home, image, "--save", str(tmp_path / "kept"), "--output", "/o*", "--",
        "write", "/out", "O", ";", "bytes", "ff", ";", "err", "E",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    kept = tmp_path / "kept"
    result = json.loads((kept / "result.json").read_text())
    jsonschema.validate(result, SCHEMA)
    [iteration] = result["iterations"]
    assert (kept / iteration["stdout"]["saved"]).read_bytes() == b"\xff"
    assert (kept / iteration["stderr"]["saved"]).read_bytes() == b"E\n"
    assert (kept / iteration["output"]["files"][0]["saved"]).read_bytes() == b"O"


def test_output_is_live(home: Path, image: str) -> None:
    process = started(home, image, "--", "echo", "first", ";", "sleep", "60")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        assert process.poll() is None, "the line came before the end"
    finally:
        process.send_signal(signal.SIGTERM)
        ended(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_stops_and_keeps_what_there_is(home: Path, image: str, number: signal.Signals) -> None:
    process = started(
        home, image, "--json", "--output", "/f", "--", "write", "/f", "x", ";", "err", "up", ";", "sleep", "60"
    )
    assert process.stderr is not None
    while process.stderr.readline() != b"up\n":
        pass
    process.send_signal(number)
    out = ended(process)
    assert process.returncode == 128 + number
    result = json.loads(out)
    [iteration] = result["iterations"]
    assert (iteration["outcome"], iteration["stderr"]["text"]) == ("canceled", "up\n")
    assert iteration["output"]["files"][0]["text"] == "x"


def test_second_signal_forces(home: Path, image: str) -> None:
    process = started(
        home, image, "--grace-period", "100", "--", "ignore", ";", "echo", "up", ";", "sleep", "100"
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None, "the first one waits for the grace period"
    process.send_signal(signal.SIGTERM)
    ended(process)
    assert process.returncode == 143


@pytest.mark.parametrize("sandbox", ["container", "none"])
def test_what_a_killed_runner_left_is_gone_after_the_next_run(home: Path, image: str, sandbox: str) -> None:
    process = started(
        home, image, "--danger-allow-no-sandbox", "--", "echo", "up", ";", "sleep", "100", sandbox=sandbox
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.kill()
    ended(process)
    assert boxes(home), "there is something to remove"
    assert run(home, image, "--", "exit", "0").returncode == 0


def test_reader_that_goes_away_does_not_end_the_run(home: Path, image: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [*START, "runner", "run", image, "--sandbox", "container", "--save", str(tmp_path / "kept"), "--",
         "echo", "x", ";", "flood", "1000000"],
        env=environment(home), stdout=writer, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writer)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "kept/iteration-1/stdout").stat().st_size == 1_000_002


@pytest.mark.parametrize("live", ["on", "off"])
def test_memory_stays_flat_whatever_is_printed(home: Path, image: str, live: str, soak: bool) -> None:
    peaks = []
    for size in (1000, 1_000_000_000 if soak else 150_000_000):
        process = subprocess.Popen(
            [*START, "runner", "run", image, "--sandbox", "container", "--live", live, "--", "flood", str(size)],
            env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.01)
        assert process.returncode == 0
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 64 * 1024


def resident(pid: int) -> int:
    """Resident memory of a process in KiB."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")), 0)


def started(
    home: Path, image: str, *words: str, sandbox: str = "container", stderr: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*START, "runner", "run", image, "--sandbox", sandbox, *words],
        env=environment(home), stdout=subprocess.PIPE, stderr=stderr,
    )  # fmt: skip


def ended(process: subprocess.Popen[bytes]) -> bytes:
    try:
        out, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return out


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_microvm_goes_with_its_runner(home_with_kernel: Path, image: str, number: signal.Signals) -> None:
    process = started(home_with_kernel, image, "--json", "--", "err", "up", ";", "sleep", "100", sandbox="qemu")
    assert process.stderr is not None
    lines = []
    while (line := process.stderr.readline()) != b"up\n":
        lines.append(line)
        if not line:
            pytest.skip(b"".join(lines).decode())
    process.send_signal(number)
    out = ended(process)
    if number is signal.SIGKILL:
        deadline = time.monotonic() + 10
        while virtual_machines(home_with_kernel) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert run(home_with_kernel, image, "--iter", "0").returncode == 0
    else:
        assert process.returncode == 143
        assert json.loads(out)["iterations"][0]["outcome"] == "canceled"
    assert virtual_machines(home_with_kernel) == []
    assert boxes(home_with_kernel) == []


def virtual_machines(home: Path) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"qemu-system" in words and str(home).encode() in words:
            found.append(int(folder.name))
    return found
