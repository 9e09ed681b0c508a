"""``metalmark host``: examine, set up and test this machine."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer
from typer.core import TyperCommand

from metalmark.cli.errors import EXIT_FAILURE, tell
from metalmark.cli.job_options import repeat_flags
from metalmark.model import InputError

if TYPE_CHECKING:
    from typer._click.core import Context

    from metalmark.runner import Diagnosis

app = typer.Typer(
    help="Examine, set up and test this machine.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_JSON = typer.Option("--json", help="Print one JSON object.")


@app.callback()
def group() -> None:
    """Examine, set up and test this machine."""


@app.command("doctor", epilog="Exit code: 0 when qemu, firecracker or container is usable, 1 when none of them is.")
def doctor(
    explain: Annotated[
        str | None, typer.Option(metavar="NAME", help="Examine nothing; tell symptom, cause and mending of this line.")
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Tell which sandboxes work here, and what is missing. Changes nothing."""
    if explain is not None:
        from metalmark.cli.host_display import explanation

        sys.stdout.write(explanation(explain) + "\n")
        return
    diagnosis = anyio.run(_examine)
    if as_json:
        _print_json(diagnosis.as_json())
    else:
        from metalmark.cli.host_display import show_diagnosis

        show_diagnosis(diagnosis)
    raise typer.Exit(0 if diagnosis.usable else EXIT_FAILURE)


async def _examine() -> Diagnosis:
    from metalmark.runner import diagnose, examine_host
    from metalmark.sandbox import DriverSettings
    from metalmark.system import folders

    return diagnose(await examine_host(DriverSettings(folders=folders(os.environ)), os.environ))


@app.command(
    "setup",
    epilog="Exit code: 0 when all that sandboxes need is there, 1 when something failed or is left to you.",
)
def setup(  # noqa: PLR0917  # the signature is the table of flags, all given by name
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    wanted: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="PART",
            help="Also this part: firecracker (where KVM does not work), kernel (again, the newest). Repeatable.",
            show_default=False,
        ),
    ] = None,
    unwanted: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="PART",
            help="Leave a part out: packages, kernel, kvm-group, firecracker. Repeatable.",
            show_default=False,
        ),
    ] = None,
    download: Annotated[
        Path | None,
        typer.Option(
            "--download",
            metavar="DIR",
            help="Install nothing; collect everything for a machine like this one that has no network.",
        ),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Install from such a folder, without a network.")
    ] = None,
    manifest_sha256: Annotated[
        str | None,
        typer.Option("--manifest-sha256", metavar="DIGEST", help="With --from: what its manifest must hash to."),
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Install what is missing on Debian and Ubuntu: packages, guest kernel, group kvm, Firecracker. Safe to repeat."""
    if download is not None and source is not None:
        raise InputError("--download", str(download), "--from is given too", hint="give one of them")
    if manifest_sha256 is not None and source is None:
        raise InputError("--manifest-sha256", manifest_sha256, "there is no --from that it belongs to")
    parts = (frozenset(wanted or ()), frozenset(unwanted or ()))
    if download is not None:
        raise typer.Exit(anyio.run(_download, download, parts[1], as_json))
    raise typer.Exit(
        anyio.run(_set_up, parts, source, manifest_sha256, _Manner(yes=yes, dry_run=dry_run, as_json=as_json))
    )


@dataclass(frozen=True, kw_only=True)
class _Manner:
    yes: bool
    dry_run: bool
    as_json: bool


async def _set_up(
    parts: tuple[frozenset[str], frozenset[str]], source: Path | None, manifest_sha256: str | None, manner: _Manner
) -> int:
    from metalmark.cli.host_display import plan_lines
    from metalmark.runner import host_firecracker, prepare_setup
    from metalmark.sandbox import DriverSettings
    from metalmark.system import folders

    settings = DriverSettings(folders=folders(os.environ))
    prepared = await prepare_setup(
        settings,
        environment=os.environ,
        firecracker=host_firecracker(settings),
        wanted=parts[0],
        unwanted=parts[1],
        folder=source,
        manifest_sha256=manifest_sha256,
        program=_program(),
    )
    plan = prepared.plan
    for line in plan_lines(plan):
        _say(line)
    left = EXIT_FAILURE if plan.incomplete else 0
    if manner.dry_run or not plan.actions:
        if manner.as_json:
            _print_json({**plan.as_json(), "done": [], "failed": []})
        return 0 if manner.dry_run else left
    if not manner.yes and not _agreed():
        return EXIT_FAILURE
    report = await prepared.apply(_say)
    for what, error in report.failed:
        _say(f"failed: {what}")
        tell(error)
    for line in report.done:
        _say(f"done: {line}")
    if manner.as_json:
        failed = [{"what": what, "error": str(error), "hint": error.hint} for what, error in report.failed]
        _print_json({**plan.as_json(), "done": list(report.done), "failed": failed})
    return EXIT_FAILURE if report.failed else left


async def _download(folder: Path, unwanted: frozenset[str], as_json: bool) -> int:
    from metalmark.model import format_bytes
    from metalmark.runner import collect, host_firecracker
    from metalmark.sandbox import DriverSettings
    from metalmark.system import folders

    settings = DriverSettings(folders=folders(os.environ))
    collected = await collect(
        folder,
        settings,
        environment=os.environ,
        firecracker=host_firecracker(settings),
        unwanted=unwanted,
        say=_say,
    )
    bundle = collected.bundle
    size = sum(file.size_bytes for file in bundle.files)
    if as_json:
        _print_json({"folder": str(folder), "manifest_sha256": collected.manifest_sha256, "bytes": size})
    _say(f"{folder}: {len(bundle.files)} files, {format_bytes(size)}, for {bundle.distribution} {bundle.version}")
    _say(f"SHA-256 of its manifest: {collected.manifest_sha256}")
    _say(f"on the other machine: metalmark host setup --from {folder.name}")
    return 0


class _SelftestCommand(TyperCommand):
    """Understands ``--scenario A B``, which the parser below it does not."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Write several names after one flag as repeated flags."""
        valued = frozenset(("--sandbox",))
        return super().parse_args(ctx, repeat_flags(args, lists=frozenset(("--scenario",)), valued=valued, image=False))


@app.command("selftest", cls=_SelftestCommand, epilog="Exit code: 0 when no scenario failed, 1 when one did.")
def selftest(
    list_only: Annotated[bool, typer.Option("--list", help="Name the scenarios, and run none.")] = False,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME...", help="Only these scenarios; several names at a time, repeatable.", show_default=False
        ),
    ] = None,
    sandbox: Annotated[
        str | None, typer.Option(metavar="NAME", help="firecracker, qemu, container or none. Without it: the best.")
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Run known scenarios on this machine, from images packed on the spot: no network, no Docker."""
    from metalmark.cli.selftest_command import carry_out

    raise typer.Exit(carry_out(list_only=list_only, names=tuple(scenario or ()), sandbox=sandbox, as_json=as_json))


def _program() -> str:
    """How this command was called, so that root finds the same one: sudo has a PATH of its own."""
    called = Path(sys.argv[0]).absolute()
    return str(called) if called.name == "metalmark" and called.is_file() else "metalmark"


def _agreed() -> bool:
    if not sys.stdin.isatty():
        tell(InputError("standard input", "no terminal", "set-up asks before it does anything", hint="use --yes"))
        return False
    sys.stderr.write("Do this? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
