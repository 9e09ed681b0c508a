"""What a scenario of the self-test is: a job, the image it needs, and what has to come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from metalmark.model import ImageConfig, IterationResult, JobSpec, RunResult, SandboxName
from metalmark.runner.executor import RunRecord
from metalmark.runner.selftest_images import PROGRAM

ANY = frozenset(SandboxName)
MICROVM = frozenset((SandboxName.QEMU, SandboxName.FIRECRACKER))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came out of a scenario's run."""

    record: RunRecord
    sandbox: SandboxName
    token: str
    """A random word that the run was given."""

    @property
    def result(self) -> RunResult:
        """The whole result."""
        return self.record.result

    @property
    def only(self) -> IterationResult:
        """The result of the first iteration."""
        expect(bool(self.result.iterations), f"no iteration was run: {self.result.error}")
        return self.result.iterations[0]

    def stream(self, name: str, iteration: int = 1) -> bytes:
        """The kept bytes of ``stdout`` or ``stderr``."""
        return (self.record.iterations[iteration - 1].folder / name).read_bytes()

    @property
    def out(self) -> str:
        """Standard output of the first iteration as text."""
        expect(bool(self.record.iterations), f"no iteration was run: {self.result.error}")
        return self.stream("stdout").decode("utf-8", "replace")

    @property
    def err(self) -> str:
        """Standard error of the first iteration as text."""
        return self.stream("stderr").decode("utf-8", "replace")

    def files(self) -> dict[str, Path]:
        """The collected output files of the first iteration by their paths in the box."""
        return {file.path: file.kept for file in self.record.iterations[0].collected.files}

    def figure(self, name: str) -> int:
        """The number that the program printed as ``name=number``."""
        for line in self.out.splitlines():
            key, equals, value = line.partition("=")
            if key == name and equals:
                return int(value)
        raise Unexpected(f"no {name}= in {self.out!r:.200}")


class Unexpected(AssertionError):
    """Something else came out than the scenario demands."""


def expect(condition: object, message: str) -> None:
    """State what has to hold.

    Raises:
        Unexpected: It does not.
    """
    if not condition:
        raise Unexpected(message)


Check = Callable[[Seen], None]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One thing that has to work on a host."""

    name: str
    about: str
    check: Check
    words: tuple[str, ...] = ()
    """Words for the self-test program, as the image's CMD; ``{token}`` becomes a random word."""
    config: ImageConfig | None = None
    """The image's configuration; None: CMD is the program with `words`."""
    spec: JobSpec = field(default_factory=lambda: JobSpec(image="", timeout_s=60))
    """The job; its image and sandbox are filled in."""
    image: str = "basic"
    """``basic``, ``layered`` or ``dynamic``."""
    sandboxes: frozenset[SandboxName] = ANY
    """Where it means something."""
    elsewhere: str = ""
    """Why it means nothing in the others."""
    machine: str = ""
    """Architecture (``uname -m``) where it means something; empty: everywhere."""
    cpus: int = 1
    """CPUs that the host needs to have."""
    cancel_after_s: float | None = None
    """Ask the run to stop so long after the command was started."""
    tolerates: frozenset[str] = frozenset()
    """Error types that stand for a missing prerequisite, and so for a skip."""

    def image_config(self, token: str) -> ImageConfig:
        """Return the configuration of the image."""
        if self.config is not None:
            return self.config
        return ImageConfig(cmd=(PROGRAM, *(word.replace("{token}", token) for word in self.words)))
