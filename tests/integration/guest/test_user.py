"""Users and groups, as the box's own files have them: the agent in a root of the test's making."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from metalmark.testing.busybox_root import BUSYBOX, busybox_tree
from metalmark.testing.running_agent import RunningAgent, running_agent
from metalmark.wire import Ending, Setup

pytestmark = [pytest.mark.anyio, pytest.mark.needs_root]

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
broken line
:x:5:5::/:
worker:x:1234:1234:A worker:/home/worker:/bin/sh
nohome:x:77:77
4000:x:88:88::/number:/bin/sh
last:x:99:99::/last:/bin/sh"""
GROUP = """\
root:x:0:
worker:x:1234:
bad:x:notanumber:worker
extra:x:4321:other,worker
more:x:4322:worker
wheel:x:10:root
"""

StartInRoot = Callable[[Path], AbstractAsyncContextManager[RunningAgent]]


@pytest.fixture
async def tree(tmp_path: Path) -> Path:
    """A small root."""
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed (apt-get install busybox-static)")
    root = await busybox_tree(tmp_path / "tree")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    return root


@pytest.fixture
def start_in(native_agent: Path) -> StartInRoot:
    """Start the agent with a folder as its root, which has no /proc and no /dev."""

    @asynccontextmanager
    async def start(root: Path) -> AsyncIterator[RunningAgent]:
        shutil.copy2(native_agent, root / "agent")
        async with running_agent(["chroot", str(root), "/agent"]) as agent:
            await agent.connection.setup(Setup())
            yield agent

    return start


SHOW = ("sh", "-c", "echo $(id -u):$(id -g):$(id -G | tr ' ' ,):$HOME")


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ("", "0:0:0,10:/root"),
        ("root", "0:0:0,10:/root"),
        ("worker", "1234:1234:1234,4321,4322:/home/worker"),
        ("1234", "1234:1234:1234,4321,4322:/home/worker"),
        ("worker:extra", "1234:4321:4321:/home/worker"),
        ("worker:", "1234:1234:1234,4321,4322:/home/worker"),
        ("worker:5555", "1234:5555:5555:/home/worker"),
        ("5555", "5555:0:0:/"),
        ("5555:6666", "5555:6666:6666:/"),
        ("5555:worker", "5555:1234:1234:/"),
        ("nohome", "77:77:77:/"),
        ("4000", "88:88:88:/number"),
        ("last", "99:99:99:/last"),
        (":extra", "0:4321:4321:/root"),
    ],
)
async def test_who_a_command_runs_as(tree: Path, start_in: StartInRoot, user: str, shown: str) -> None:
    async with start_in(tree) as agent:
        result = await agent.run(*SHOW, user=user)
        assert result.stdout.decode().strip() == shown, (result.stderr, result.end)


@pytest.mark.parametrize(
    ("user", "named"),
    [
        ("nobody", "user 'nobody'"),
        ("worker:nogroup", "group 'nogroup'"),
        ("4294967295", "user '4294967295'"),
        ("-1", "user '-1'"),
        ("12x", "user '12x'"),
        ("u" * 500, "user 'uuu"),
        ("root\nx", "user 'root\nx'"),
    ],
)
async def test_who_is_not_there(tree: Path, start_in: StartInRoot, user: str, named: str) -> None:
    async with start_in(tree) as agent:
        result = await agent.run(*SHOW, user=user)
        assert result.end.ending is Ending.UNKNOWN_USER
        assert named in result.end.message


async def test_a_home_that_was_given_stays(tree: Path, start_in: StartInRoot) -> None:
    async with start_in(tree) as agent:
        result = await agent.run("sh", "-c", "echo $HOME", user="worker", env=("HOME=/mine", "PATH=/bin"))
        assert result.stdout == b"/mine\n"


@pytest.mark.parametrize("kind", ["missing", "fifo", "folder", "loop", "endless line", "binary", "huge"])
async def test_files_of_any_kind_where_users_should_be(tree: Path, start_in: StartInRoot, kind: str) -> None:
    path = tree / "etc/passwd"
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to("passwd")
        case "endless line":
            path.write_bytes(b"x" * 1_000_000 + PASSWD.encode())
        case "binary":
            path.write_bytes(os.urandom(100_000))
        case "huge":
            path.touch()
            os.truncate(path, 1 << 40)
    (tree / "work").chmod(0o777)
    with anyio.fail_after(20):
        async with start_in(tree) as agent:
            assert (await agent.run("true", user="worker")).end.ending is Ending.UNKNOWN_USER
            # The command must not read the file itself.
            assert (await agent.run("touch", "/work/mine", user="7:8")).end.code == 0
    made = (tree / "work/mine").stat()
    assert (made.st_uid, made.st_gid) == (7, 8)


async def test_what_stands_at_dev_null_is_not_trusted(tree: Path, start_in: StartInRoot) -> None:
    os.mkfifo(tree / "dev/null")
    with anyio.fail_after(20):
        async with start_in(tree) as agent:
            result = await agent.run("sh", "-c", "cat; echo end")
            assert (result.stdout, result.end.code) == (b"end\n", 0)


async def test_without_proc_commands_still_end(tree: Path, start_in: StartInRoot) -> None:
    async with start_in(tree) as agent:
        assert (await agent.run("sh", "-c", "sleep 0.1 & exit 5")).end.code == 5
