"""An agent that dies in one named phase, in every sandbox: the box is lost, it is said so, and nothing stays.

The first process of a guest cannot be killed from within it, so agents are built that die by themselves: the real
sources, with one function of each phase replaced by the linker.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.machine.sandbox.host_boxes import driver_of, left_here, list_here, need_host_boxes, remove_images, shell
from tests.machine.sandbox.host_boxes import started as started_host_box
from tests.machine.sandbox.vm_boxes import made, need_qemu, qemu_driver

from metalmark.model import MIB, BoxLost, SandboxName
from metalmark.sandbox import Box
from metalmark.wire import Get

pytestmark = [pytest.mark.anyio]
GUEST = Path(__file__).parents[3] / "guest"
FUNCTIONS = {"kernel": "boot_machine", "agent": "setup_box", "exec": "launch_parse", "collect": "transfer_hear"}
"""Phase to the function in which its agent dies."""
AT_START = ("kernel", "agent")


@pytest.fixture(scope="module", autouse=True)
def _images() -> object:
    yield
    remove_images()


@pytest.fixture(scope="module")
def mortal_agents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An agent for each phase."""
    if shutil.which("musl-gcc") is None:
        pytest.skip("musl-gcc is not installed (package musl-tools)")
    folder = tmp_path_factory.mktemp("agents")
    agents = {}
    for phase, function in FUNCTIONS.items():
        (folder / "dies.c").write_text(f"void __wrap_{function}(void) {{ __builtin_trap(); }}\n")
        agents[phase] = folder / f"agent-{phase}"
        sources = sorted(str(path) for path in GUEST.glob("*.c"))
        subprocess.run(
            ["musl-gcc", "-std=c11", "-D_GNU_SOURCE", "-O1", "-static", f"-Wl,--wrap={function}", "-o", agents[phase],
             *sources, folder / "dies.c"],
            check=True,
        )  # fmt: skip
    return agents


async def _use(box: Box, phase: str) -> None:
    if phase == "exec":
        await shell(box, "echo here")
    else:
        await box.copy_out(Get(patterns=("/bin/*",), max_bytes=MIB, max_files=9), lambda _data: None)


@pytest.mark.parametrize("phase", FUNCTIONS)
async def test_agent_of_a_microvm_dies(phase: str, home_with_kernel: Path, mortal_agents: dict[str, Path]) -> None:
    need_qemu()
    before = list_here(home_with_kernel)
    async with made(qemu_driver(home_with_kernel, agent=mortal_agents[phase])) as one:
        if phase in AT_START:
            with pytest.raises(BoxLost):
                await one.box.start()
        else:
            await one.box.start()
            with pytest.raises(BoxLost):
                await _use(one.box, phase)
    assert await left_here(before, home_with_kernel) == {}


@pytest.mark.needs_root
@pytest.mark.parametrize("sandbox", [SandboxName.CONTAINER, SandboxName.NONE])
@pytest.mark.parametrize("phase", ["agent", "exec", "collect"])
async def test_agent_of_a_host_box_dies(
    sandbox: SandboxName, phase: str, tmp_path: Path, mortal_agents: dict[str, Path]
) -> None:
    need_host_boxes()
    before = list_here(tmp_path)
    with pytest.raises(BoxLost):
        async with started_host_box(driver_of(sandbox, tmp_path, agent=mortal_agents[phase]), tmp_path) as box:
            assert phase not in AT_START
            await _use(box, phase)
    assert await left_here(before, tmp_path) == {}
