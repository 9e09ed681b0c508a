"""What a person sees of ``metalmark host doctor`` and ``host setup``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metalmark.model import InputError
from metalmark.runner import Diagnosis, Finding, SetupPlan, Status

_STYLE = {Status.OK: "green", Status.MISSING: "yellow", Status.UNUSABLE: "red"}


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Write the tables to standard output."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        # Commands to copy must not be folded where nobody set a width.
        console.width = max(console.width, 160)
    console.print(Text(", ".join(diagnosis.host[key] for key in ("distribution", "machine", "cpus"))))
    console.print(Text(f"kernel {diagnosis.host['kernel']}, memory {diagnosis.host['memory']}"))
    console.print()
    console.print(_sandboxes(diagnosis))
    console.print()
    console.print(_findings(diagnosis))
    for line in _mending(diagnosis):
        console.print(line, soft_wrap=True)
    for note in diagnosis.notes:
        advice = f"\n      {note.advice}" if note.advice else ""
        console.print(Text(f"note: {note.text} [{note.name}]{advice}"), soft_wrap=True)
    console.print()
    works = ", ".join(str(sandbox.name) for sandbox in diagnosis.sandboxes if sandbox.usable)
    console.print(Text(f"Sandboxes that work here: {works or 'none'}."))
    console.print(Text("More of a line: metalmark host doctor --explain NAME; of a sandbox: --explain sandbox-NAME."))


def explanation(name: str) -> str:
    """Return what the troubleshooting page says of a line.

    Raises:
        InputError: It has no entry of this name.
    """
    # A copy, for the documentation is not part of an installation.
    page = (Path(__file__).parent / "pages" / "troubleshooting.md").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^### `([a-z0-9-]+)`\n\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    if name not in entries:
        raise InputError("--explain", name, "no line has this name", hint=", ".join(entries))
    return str(entries[name]).strip()


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    table.columns[0].no_wrap = True
    table.columns[1].no_wrap = True
    return table


def _sandboxes(diagnosis: Diagnosis) -> Table:
    table = _table("sandbox", "here", "why")
    for sandbox in diagnosis.sandboxes:
        state = Text(sandbox.accelerator or "usable", style="green") if sandbox.usable else Text("no", style="red")
        why = f"{sandbox.reason}; {sandbox.hint}" if sandbox.hint and not sandbox.usable else sandbox.reason
        table.add_row(str(sandbox.name), state, Text(why))
    return table


def _findings(diagnosis: Diagnosis) -> Table:
    table = _table("prerequisite", "state", "found", "for")
    for finding in diagnosis.findings:
        state = Text(str(finding.status), style=_STYLE[finding.status])
        table.add_row(finding.name, state, Text(finding.found), Text(finding.why))
    return table


def _mending(diagnosis: Diagnosis) -> Iterator[Text]:
    broken: list[Finding] = [finding for finding in diagnosis.findings if finding.fix]
    if broken:
        yield Text("\nTo mend it:")
    for finding in broken:
        yield Text(f"  {finding.name}: {finding.fix}")
    if diagnosis.notes:
        yield Text("")


def plan_lines(plan: SetupPlan) -> Iterator[str]:
    """Yield the plan, one line after the other."""
    for present in plan.present:
        yield f"already there: {present}"
    for left_out in plan.left_out:
        yield f"left out: {left_out}"
    for number, action in enumerate(plan.actions, start=1):
        yield f"{number}. {action.describe()}"
    if plan.by_hand:
        yield "left to you, because it needs root:"
        yield from (f"   {command}" for command in plan.by_hand)
    if not plan.actions and not plan.by_hand:
        yield "nothing to do"
