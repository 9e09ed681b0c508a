"""Spawn to the end of `true`: a box of ours against the same QEMU command line by hand, and a container against runc.

By hand means: the very arguments, kernel, initramfs and disks that the driver makes, started with a plain subprocess,
and a plain blocking socket client that lets the guest run, sends the same frames and waits for the end of `true`. What
is in both: disk making, boot, set-up, `true`, power-off. Interleaved, so that a busy moment of the host meets both.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
from pathlib import Path

import anyio
from small_box import arguments, box_of, command, series, usable_drivers

from metalmark.model import SandboxName
from metalmark.sandbox import Driver, qemu_process
from metalmark.system import Child, find_tool, monotonic_s
from metalmark.testing.busybox_root import busybox_tree
from metalmark.wire import Exec, Frame, FrameDecoder, Kind, Setup, encode


async def ours(driver: Driver) -> float:
    async with box_of(driver, start=False) as box:
        began_s = monotonic_s()
        await box.start()
        exited, _, _ = await command(box, "/bin/true")
        assert exited.code == 0
        await box.stop()
        return monotonic_s() - began_s


async def by_hand(driver: Driver) -> float:
    """Take the command line from a box that is not started, and run it without any of our machinery."""
    taken: list[tuple[str, ...]] = []
    spawn = qemu_process.spawn

    class TakenError(Exception):
        """The command line has been taken."""

    def take(argv: tuple[str, ...], **_: object) -> Child:
        taken.append(with_paths(argv))
        raise TakenError

    async with box_of(driver, start=False) as box:
        qemu_process.spawn = take
        try:
            await box.start()
        except TakenError:
            pass
        finally:
            qemu_process.spawn = spawn
        scratch = next(json.loads(word)["file"]["filename"] for word in taken[0] if "scratch.ext4" in word)
        return await anyio.to_thread.run_sync(run_by_hand, taken[0], Path(scratch))


def with_paths(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return QEMU's own arguments, with paths where the driver hands it open files."""
    words = list(argv[argv.index("--") + 1 :] if "--" in argv else argv)
    while "-add-fd" in words:
        place = words.index("-add-fd")
        del words[place : place + 2]
    opened = re.compile(r"/(?:dev/fdset|proc/self/fd)/([0-9]+)")
    return tuple(opened.sub(lambda match: str(Path(f"/proc/self/fd/{match[1]}").readlink()), word) for word in words)


def run_by_hand(argv: tuple[str, ...], scratch: Path) -> float:
    size = scratch.stat().st_size
    scratch.unlink()
    began_s = monotonic_s()
    with scratch.open("wb") as file:
        file.truncate(size)
    subprocess.run([find_tool("mke2fs"), "-q", "-F", "-t", "ext4", "-E", "nodiscard", str(scratch)], check=True)
    monitor, monitor_guest = socket.socketpair()
    channel, channel_guest = socket.socketpair()
    numbers = {"socket,id=monitor": monitor_guest.fileno(), "socket,id=channel": channel_guest.fileno()}
    command_line = [
        f"{word.split(',fd=')[0]},fd={numbers[word.split(',fd=')[0]]}" if ",fd=" in word else word for word in argv
    ]
    child = subprocess.Popen(command_line, pass_fds=list(numbers.values()), stdin=subprocess.DEVNULL)
    for end in (monitor_guest, channel_guest):
        end.close()
    monitor.recv(65536)
    for name in ("qmp_capabilities", "cont"):
        monitor.sendall(json.dumps({"execute": name}).encode())
        monitor.recv(65536)
    decoder, done = FrameDecoder(), False
    while not done:
        for frame in decoder.feed(channel.recv(65536)):
            if frame.kind == Kind.HELLO:
                setup = Setup(root="/dev/vda", root_type="squashfs", scratch="/dev/vdb", pids=64)
                channel.sendall(encode(setup.frame()))
            elif frame.kind == Kind.READY:
                channel.sendall(encode(Exec(argv=("/bin/true",), env=("PATH=/bin",), stream_bytes=1).frame(1)))
            elif frame.kind == Kind.EXITED:
                channel.sendall(encode(Frame(kind=Kind.POWEROFF, stream=0)))
                done = True
    child.wait()
    elapsed_s = monotonic_s() - began_s
    monitor.close()
    channel.close()
    return elapsed_s


def bare_runc(bundle: Path) -> float:
    """Run `true` in the same tree with a plain `runc run`."""
    began_s = monotonic_s()
    subprocess.run([find_tool("runc"), "run", "--bundle", str(bundle), f"bench-{bundle.name}"], check=True)
    return monotonic_s() - began_s


async def make_bundle(folder: Path) -> Path:
    """Make what `runc run` takes: its own example configuration, with our command and no terminal."""
    await busybox_tree(folder / "rootfs")
    await anyio.run_process([find_tool("runc"), "spec", "--bundle", str(folder)])
    return await anyio.to_thread.run_sync(change_command, folder)


def change_command(folder: Path) -> Path:
    path = folder / "config.json"
    configuration = json.loads(path.read_text())
    configuration["process"].update(terminal=False, args=["/bin/true"])
    path.write_text(json.dumps(configuration))
    return folder


async def containers(count: int) -> None:
    """Compare boxes of the sandbox `container` with the runtime alone."""
    for driver in await usable_drivers([SandboxName.CONTAINER]):
        with tempfile.TemporaryDirectory(prefix="bare") as folder:
            bundle = await make_bundle(Path(folder) / "bundle")
            ours_s, bare_s = [], []
            for _ in range(count):
                ours_s.append(await ours(driver))
                bare_s.append(await anyio.to_thread.run_sync(bare_runc, bundle))
        more_s = series("container, ours", ours_s) - series("runc run", bare_s)
        print(f"{'more':<28} {more_s * 1e3:.1f} ms (aim: at most 60)")


async def main() -> None:
    options = arguments(__doc__ or "", sandboxes=False)
    count = 1 if options.quick else 10
    for driver in await usable_drivers([SandboxName.QEMU]):
        ours_s, by_hand_s = [], []
        for _ in range(count):
            ours_s.append(await ours(driver))
            by_hand_s.append(await by_hand(driver))
        ratio = series("qemu, ours", ours_s) / series("qemu, by hand", by_hand_s)
        print(f"{'ratio':<28} {ratio:.3f} (aim: at most 1.25)")
    await containers(count)


if __name__ == "__main__":
    anyio.run(main)
