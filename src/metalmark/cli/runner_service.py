"""``metalmark runner install-service``, ``uninstall-service``: a runner as a service of this machine."""

from __future__ import annotations

import functools
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import typer.main

from metalmark.model import InputError, StableError
from metalmark.runner import DEFAULT_ROOT

if TYPE_CHECKING:
    from typer._click.core import Command  # only for a signature; Typer has no public name for it

_CHECKED_PACKAGES = ("client", "host", "oci", "render", "runner", "sandbox", "system", "wire")
"""What a runner is made of."""

Root = Annotated[Path, typer.Option("--root", metavar="DIR", help="Where versions are kept.")]


def add_runner_service(app: typer.Typer) -> None:
    """Add the commands to the group ``runner``."""
    app.command("install-service", context_settings={"ignore_unknown_options": True})(install_service)
    app.command("uninstall-service")(uninstall_service)
    app.command("smoke-test", hidden=True)(smoke_test)


def install_service(  # noqa: PLR0917  # each is a flag
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="UP-OPTION", help="As in `--slots 2 --allow-emulation`.", show_default=False),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="URL", help="The server; else METALMARK_HOST.", show_default=False)
    ] = None,
    runner: Annotated[
        str | None,
        typer.Option(metavar="RUNNER", help="Slug or UUID; else METALMARK_RUNNER.", show_default=False),
    ] = None,
    key_file: Annotated[
        Path,
        typer.Option("--key-file", metavar="FILE", help="Holds the runner's key; only root needs to read it."),
    ] = Path("/etc/metalmark/runner.key"),
    artifact: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What to install, as scripts/build-update makes it. Without it a copy of this install, unless there "
            "is a version already.",
            show_default=False,
        ),
    ] = None,
    drain_timeout: Annotated[
        int,
        typer.Option(metavar="SECONDS", min=0, max=604_800, help="How long a job may go on when the service stops."),
    ] = 600,
    root: Root = DEFAULT_ROOT,
    only_print: Annotated[bool, typer.Option("--print", help="Show the unit and change nothing.")] = False,
    no_start: Annotated[
        bool, typer.Option("--no-start", help="Leave the service as it is until it is started.")
    ] = False,
) -> None:
    """Make the runner a service of systemd that starts with this machine and updates itself.

    Running it again brings the service up to date, and changes nothing when there is nothing to change.
    """
    from metalmark.cli.async_command import run_async
    from metalmark.cli.view import done, show
    from metalmark.client import find_address
    from metalmark.runner import ServiceRequest, ServiceUnit, Systemctl, install_service
    from metalmark.system import folders

    name = runner or os.environ.get("METALMARK_RUNNER") or os.environ.get("BENCHER_RUNNER")
    if not name:
        raise InputError("--runner", "", "it names the runner at the server", hint="metalmark runner create")
    if any(word.partition("=")[0] == "--key" for word in options or ()):
        raise InputError(
            "--key", "***", "everybody on this machine can read the unit", hint="put the key into a file: --key-file"
        )
    places = folders({}, uid=0)
    unit = ServiceUnit(
        root=root.absolute(),
        state=places.state,
        cache=places.cache,
        host=str(find_address(host=host, environment=os.environ)),
        runner=name,
        key_file=key_file.absolute(),
        drain_timeout_s=drain_timeout,
        options=tuple(options or ()),
    )
    # The unit gives the name by the environment.
    _parse((*unit.arguments(), "--runner", name))
    if only_print:
        sys.stdout.write(unit.text())
        return
    request = ServiceRequest(unit=unit, artifact=artifact, start=not no_start)
    changed = run_async(functools.partial(install_service, request, manager=Systemctl(), tell=_tell))
    show(done("the service is in place" if changed else "the service was in place already"), as_json=False)


def uninstall_service(root: Root = DEFAULT_ROOT) -> None:
    """Stop the service and take it away; the key, results that wait to be sent, and caches stay."""
    from metalmark.cli.async_command import run_async
    from metalmark.cli.view import done, show
    from metalmark.runner import Systemctl, uninstall_service

    found = run_async(functools.partial(uninstall_service, root.absolute(), manager=Systemctl(), tell=_tell))
    show(done("the service is gone" if found else "there is no service"), as_json=False)


def smoke_test(
    words: Annotated[list[str] | None, typer.Argument(help="A command line that has to be understood.")] = None,
) -> None:
    """Load every module of a runner, and parse a command line without carrying it out.

    The version that is about to be replaced asks this of the one that it installed: both names must stay.
    """
    for package in _CHECKED_PACKAGES:
        found = import_module(f"metalmark.{package}")
        for module in pkgutil.iter_modules(found.__path__, f"{found.__name__}."):
            import_module(module.name)
    if words:
        _parse(words)
    sys.stdout.write("ok\n")


def _parse(words: Sequence[str]) -> None:
    """Parse a command line of this program.

    Raises:
        InputError: It is not understood.
    """
    from metalmark.cli.application import app

    command: Command = typer.main.get_command(app)
    rest = [
        word for index, word in enumerate(words) if any(not before.startswith("-") for before in words[: index + 1])
    ]
    name = "metalmark"
    while hasattr(command, "get_command"):
        context = typer.Context(command, info_name=name)
        found = command.get_command(context, rest[0]) if rest else None
        if found is None:
            raise StableError(f"there is no command {' '.join((name, *rest[:1]))!r}")
        command, name, rest = found, rest[0], rest[1:]
    try:
        command.make_context(name, rest).close()
    except Exception as error:
        # The parser's own errors have no public name.
        text = getattr(error, "format_message", None)
        if text is None:
            raise
        # The command line is not repeated: it may hold a key, and this goes into logs.
        raise InputError("options of runner up", "***", text(), hint="metalmark runner up --help") from None


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
