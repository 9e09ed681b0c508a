"""Carries out ``host selftest``."""

from __future__ import annotations

import json
import os
import sys

import anyio

from metalmark.cli.errors import EXIT_FAILURE
from metalmark.cli.stop_signals import heeding_signals
from metalmark.model import EXIT_SIGNAL_BASE, InputError, MetalmarkError, SandboxName, format_seconds
from metalmark.runner import (
    SCENARIOS,
    ChosenSandbox,
    MachineSandboxes,
    Mark,
    ScenarioResult,
    SelftestReport,
    SelftestRequest,
    StopRequest,
    as_metalmark_error,
    run_selftest,
    select,
)
from metalmark.sandbox import DriverSettings, sweep
from metalmark.system import ensure_private, folders, in_thread


def carry_out(*, list_only: bool, names: tuple[str, ...], sandbox: str | None, as_json: bool) -> int:
    """Run scenarios, show how each ended, and return the exit code.

    Raises:
        InputError: A name is unknown.
        SandboxUnavailable: The sandbox that was asked for does not work here.
    """
    if list_only:
        _list(names, as_json=as_json)
        return 0
    select(names)
    outcome = anyio.run(_carry_out, names, _sandbox(sandbox), as_json)
    if isinstance(outcome, MetalmarkError):
        raise outcome
    return outcome


def _sandbox(text: str | None) -> SandboxName | None:
    try:
        return None if text is None else SandboxName(text)
    except ValueError:
        raise InputError("--sandbox", text, "there is no such choice", hint=f"use {', '.join(SandboxName)}") from None


def _list(names: tuple[str, ...], *, as_json: bool) -> None:
    scenarios = select(names)
    if as_json:
        _print(json.dumps([{"name": scenario.name, "about": scenario.about} for scenario in scenarios], indent=2))
        return
    width = max(len(scenario.name) for scenario in SCENARIOS)
    for scenario in scenarios:
        _print(f"{scenario.name:{width}}  {scenario.about}")


async def _carry_out(names: tuple[str, ...], sandbox: SandboxName | None, as_json: bool) -> int | MetalmarkError:
    places = folders(os.environ)
    stop = StopRequest()
    status = 0
    try:
        for place in (places.state, places.cache, places.run):
            ensure_private(place)
        await in_thread(sweep, places)
        # Whoever tests the sandbox `none` has named it: the images are the self-test's own.
        settings = DriverSettings(folders=places, allow_none=sandbox is SandboxName.NONE)
        async with heeding_signals(stop):
            report = await run_selftest(
                SelftestRequest(
                    settings=settings,
                    sandboxes=MachineSandboxes(settings),
                    sandbox=sandbox,
                    names=names,
                    chosen=_say_choice,
                    ended=(lambda _result: None) if as_json else _show,
                    stop=stop,
                )
            )
            status = _finish(report, stop, as_json=as_json)
    except (ExceptionGroup, MetalmarkError) as error:
        # The task group that listens for signals wraps what is raised inside it.
        return as_metalmark_error(error)
    return status


def _finish(report: SelftestReport, stop: StopRequest, *, as_json: bool) -> int:
    if as_json:
        _print(json.dumps(as_document(report), indent=2))
    else:
        counts = {mark: sum(result.mark is mark for result in report.results) for mark in Mark}
        _print(f"{report.sandbox}: " + ", ".join(f"{count} {mark}" for mark, count in counts.items()))
    if stop.requested:
        return EXIT_SIGNAL_BASE + stop.signal
    return EXIT_FAILURE if report.failed else 0


def as_document(report: SelftestReport) -> dict[str, object]:
    """Return what ``--json`` prints."""
    return {
        "sandbox": report.sandbox.value,
        "accelerator": report.accelerator,
        "choice": report.choice,
        "failed": report.failed,
        "scenarios": [
            {
                "name": result.name,
                "result": result.mark.value,
                "reason": result.reason,
                "duration_s": round(result.duration_s, 6),
            }
            for result in report.results
        ],
    }


def _say_choice(sandbox: ChosenSandbox) -> None:
    sys.stderr.write(f"sandbox: {sandbox.name.value}: {sandbox.reason}\n")
    sys.stderr.flush()


def _show(result: ScenarioResult) -> None:
    took = f" ({format_seconds(result.duration_s)})" if result.mark is not Mark.SKIP else ""
    reason = f": {result.reason}" if result.reason else ""
    _print(
        "".join(
            char if char.isprintable() else ascii(char)[1:-1]
            for char in f"{result.mark:4}  {result.name}{took}{reason}"
        )
    )


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
