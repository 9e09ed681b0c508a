"""A station whose box is held where nothing but the box itself can wait: while it starts, and while it sends files."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.faults.runner.gated_agent import Gate, standing_gate
from tests.faults.runner.station import Station

from metalmark.testing.faulty_line import FaultyLine
from metalmark.testing.rig import FINAL, Rig

PHASES = ("spawn", "kernel", "agent", "collect")
TOLD_AS = {"kernel": "spawn", "agent": "spawn"}
"""A box's start is told as one phase."""
BIG_BYTES = 3_000_000


@dataclass(kw_only=True)
class HeldBox(Station):
    """Of a sandbox and one of `PHASES`. What holds it waits for as long as it takes."""

    box_gate: Gate

    @classmethod
    def build(cls, rig: Rig, stack: ExitStack, *, phase: str, sandbox: str, kernels: Path, agent: Path) -> HeldBox:
        """Register and start the runner. Its line and its gate end with the stack."""
        name = f"held-{sandbox}-{phase}"
        spec = rig.spec(name, sandbox)
        line = stack.enter_context(FaultyLine(rig.server.port))
        gate = stack.enter_context(standing_gate(agent, shutil.which("qemu-system-x86_64")))
        options = ["--allow-emulation", "--poll-timeout", "5"]
        runner = rig.runner(name, spec, url=line.url, options=options, environment=gate.environment, kernels=kernels)
        before = runner.leftovers()
        runner.start()
        return cls(
            rig=rig, phase=phase, sandbox=sandbox, runner=runner, line=line, spec=spec, before=before, box_gate=gate
        )

    def begin(self, *, retry: bool, exec_s: int) -> None:
        """Submit a job that will stay in the phase."""
        del exec_s
        if self.phase == "spawn":
            self.box_gate.spawn_hold.touch()
        else:
            self.box_gate.close(self.phase)
        script, fields = "echo begun; echo done", {}
        if self.phase == "collect":
            script = f"head -c {BIG_BYTES} /dev/zero | tr '\\0' x > /work/big; echo begun; echo done"
            fields["file_paths"] = ["/work/big"]
        self.job = self.rig.submit(self.spec, "sh", "-c", script, retry=retry, **fields)

    def reached(self) -> bool:
        """Whether the job is in the phase by now."""
        found = self.rig.job(self.job)
        self.runner.note_boxes()
        assert found["status"] not in FINAL, f"{self.name}: over before it was held: {found}"
        if found["phase"] != TOLD_AS.get(self.phase, self.phase):
            return False
        processes = self.sandbox_processes()
        return bool(processes) if self.phase == "spawn" else self.box_gate.is_waited_at(processes)

    def release(self) -> None:
        """Hold the job no longer."""
        self.box_gate.spawn_hold.unlink(missing_ok=True)
        self.box_gate.open()
        super().release()
