"""Tells the outcome of an iteration from what the agent and the runner saw."""

from __future__ import annotations

from dataclasses import dataclass
from signal import SIGKILL

from metalmark.model import (
    Canceled,
    ErrorResult,
    Fault,
    MetalmarkError,
    Outcome,
    ProcessRefused,
    TransientError,
    exit_code,
)
from metalmark.wire import Ending, Exited

_ENDINGS = {
    Ending.EXITED: Outcome.EXITED,
    Ending.SIGNALED: Outcome.SIGNALED,
    Ending.OUT_OF_MEMORY: Outcome.OUT_OF_MEMORY,
    Ending.NOT_FOUND: Outcome.NOT_FOUND,
    Ending.NOT_EXECUTABLE: Outcome.NOT_EXECUTABLE,
    Ending.UNKNOWN_USER: Outcome.INFRASTRUCTURE,
    Ending.NO_WORKDIR: Outcome.INFRASTRUCTURE,
    Ending.FAILED: Outcome.INFRASTRUCTURE,
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How an iteration ended, and with which numbers."""

    outcome: Outcome
    exit_code: int
    signal: int | None = None
    error: ErrorResult | None = None

    @property
    def ran(self) -> bool:
        """Whether the command itself ran, so that its times and memory mean something."""
        return self.outcome not in (Outcome.NOT_FOUND, Outcome.NOT_EXECUTABLE, Outcome.INFRASTRUCTURE)


def verdict_of_end(
    exited: Exited | None, *, argv: tuple[str, ...], timed_out: bool = False, canceled_by: int | None = None
) -> Verdict:
    """Return the verdict for a command that was started, or could not be.

    Args:
        exited: What the agent reported; None when it reported nothing, though it was asked to end the command.
        argv: The command, for messages.
        timed_out: The runner ended it because its time was over.
        canceled_by: The runner ended it because of this signal.
    """
    if canceled_by is not None:
        return _verdict(Outcome.CANCELED, signal=canceled_by)
    if timed_out:
        return _verdict(Outcome.TIMED_OUT)
    assert exited is not None
    outcome = _ENDINGS[exited.ending]
    match exited.ending:
        case Ending.EXITED:
            return Verdict(outcome=outcome, exit_code=exited.code)
        case Ending.SIGNALED:
            return _verdict(outcome, signal=exited.code or int(SIGKILL))
        case Ending.OUT_OF_MEMORY:
            # The first process may have exited before it was its turn, because it had lost another.
            return _verdict(outcome, signal=int(SIGKILL))
        case Ending.NOT_FOUND:
            error = _refused(f"command {argv[0]!r} was not found in the image", exited, hint="check the path and PATH")
        case Ending.NOT_EXECUTABLE:
            error = _refused(
                f"command {argv[0]!r} cannot be executed", exited,
                hint="check its mode, its interpreter and the platform that it was built for",
            )  # fmt: skip
        case Ending.UNKNOWN_USER:
            error = _refused(
                "the user is not known in the image",
                exited,
                hint="give --user a name from its /etc/passwd, or a number",
            )
        case Ending.NO_WORKDIR:
            error = _refused("the working directory is not in the image", exited, hint="give another with --workdir")
        case _:
            error = _refused(f"command {argv[0]!r} could not be started (errno {exited.code})", exited)
    return Verdict(outcome=outcome, exit_code=exit_code(outcome), error=error)


def verdict_of_error(error: MetalmarkError, *, canceled_by: int | None = None) -> Verdict:
    """Return the verdict for an iteration that an error ended."""
    if canceled_by is not None or isinstance(error, Canceled):
        return _verdict(Outcome.CANCELED, signal=canceled_by)
    outcome = Outcome.INFRASTRUCTURE
    return Verdict(outcome=outcome, exit_code=exit_code(outcome), error=error_result(error))


def error_result(error: MetalmarkError) -> ErrorResult:
    """Return an error as a result states it."""
    fault = Fault.TRANSIENT if isinstance(error, TransientError) else Fault.STABLE
    return ErrorResult(fault=fault, type=type(error).__name__, message=str(error), hint=error.hint)


def _verdict(outcome: Outcome, *, signal: int | None = None) -> Verdict:
    return Verdict(outcome=outcome, exit_code=exit_code(outcome, signal=signal), signal=signal)


def _refused(found: str, exited: Exited, *, hint: str = "") -> ErrorResult:
    message = f"{found}: {exited.message}" if exited.message else found
    fault = None if exited.ending in (Ending.NOT_FOUND, Ending.NOT_EXECUTABLE) else Fault.STABLE
    return ErrorResult(fault=fault, type=ProcessRefused.__name__, message=message, hint=hint)
