"""What scenarios demand, in words."""

from __future__ import annotations

from metalmark.model import Outcome
from metalmark.runner.selftest_scenario import Check, Seen, expect


def ended(outcome: Outcome, code: int) -> Check:
    """The first iteration has this outcome and exit code, and the run exits with it."""

    def check(seen: Seen) -> None:
        only = seen.only
        told = f"{only.outcome} with exit code {only.exit_code}"
        more = only.error.message if only.error else seen.err[:300]
        expect(only.outcome is outcome and only.exit_code == code, f"it ended {told}: {more}")

    return check


ok = ended(Outcome.EXITED, 0)
"""The command ended by itself with 0."""


def prints(text: str) -> Check:
    """All is well, and standard output is exactly this."""

    def check(seen: Seen) -> None:
        ok(seen)
        wanted = text.replace("{token}", seen.token)
        expect(seen.out == wanted, f"stdout is {seen.out!r:.300}, not {wanted!r:.300}")

    return check


def shows(*lines: str) -> Check:
    """All is well, and these lines are on standard output."""

    def check(seen: Seen) -> None:
        ok(seen)
        for line in lines:
            expect(
                line.replace("{token}", seen.token) in seen.out.splitlines(),
                f"no line {line!r:.100} in {seen.out!r:.300}",
            )

    return check


def refused(text: str) -> Check:
    """The command could not be started for a stable reason that names this."""

    def check(seen: Seen) -> None:
        ended(Outcome.INFRASTRUCTURE, 125)(seen)
        error = seen.only.error
        expect(error is not None and text in error.message, f"the error does not name {text}: {error}")

    return check


def ran(times: int, code: int) -> Check:
    """So many iterations were run, and the run exits with this."""

    def check(seen: Seen) -> None:
        result = seen.result
        expect(
            (len(result.iterations), result.exit_code) == (times, code),
            f"{len(result.iterations)} iterations and exit code {result.exit_code}: {result.error}",
        )

    return check


def both(*checks: Check) -> Check:
    """All of these hold."""

    def check(seen: Seen) -> None:
        for one in checks:
            one(seen)

    return check
