"""The application: global options, and groups that are imported when they are used."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
import typer.main
from typer.core import TyperGroup

import metalmark
from metalmark.cli.errors import exit_status, tell
from metalmark.cli.logs import Verbosity, set_up_logging
from metalmark.model import MetalmarkError

if TYPE_CHECKING:
    # Typer keeps the parser that it is built on to itself; only signatures need its names.
    from typer._click.core import Command, Context
    from typer._click.formatting import HelpFormatter

GROUPS: Mapping[str, tuple[str, str]] = {
    "run": ("metalmark.cli.run", "Run a benchmark on one of a server's runners, and watch it."),
    "runner": ("metalmark.cli.runner", "Run benchmarks on this machine, and look after a server's runners."),
    "image": ("metalmark.cli.image", "Pack, inspect and cache OCI images."),
    "host": ("metalmark.cli.host", "Examine, set up and test this machine."),
    "server": ("metalmark.cli.server", "Run a server, and ask one about itself."),
    "registry": ("metalmark.cli.registry", "Look after the registry of a server on this machine."),
    "job": ("metalmark.cli.job", "Follow, cancel and retry jobs."),
    "report": ("metalmark.cli.report", "Look after reports: what runs measured."),
    "spec": ("metalmark.cli.spec", "Describe the machines that jobs ask for."),
    "project": ("metalmark.cli.project", "Look after projects and their keys."),
    "branch": ("metalmark.cli.branch", "Look after branches: lines of development, and where each began."),
    "testbed": ("metalmark.cli.testbed", "Look after testbeds, where benchmarks run."),
    "organization": ("metalmark.cli.organization", "Look after organizations, which own projects."),
    "member": ("metalmark.cli.member", "Invite people into an organization and give them roles."),
    "user": ("metalmark.cli.user", "Look after users and their keys."),
    "key": ("metalmark.cli.key", "Keys of a user, for programs."),
    "token": ("metalmark.cli.token", "Tokens of a user, which keys have replaced."),
    "auth": ("metalmark.cli.auth", "Sign up and sign in."),
}
"""Name of each group, the module whose ``app`` it is, and its line in the help."""

ALIASES: Mapping[str, str] = {"org": "organization"}
"""Other names of groups, which help does not list."""

HELP_COLUMNS = 100


class LazyGroup(TyperGroup):
    """A group whose members are imported when one of them is named, not for the list of them."""

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the names of the groups."""
        return [*super().list_commands(ctx), *GROUPS]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Import a group and return it; None when there is no such group."""
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in GROUPS:
            return super().get_command(ctx, cmd_name)
        group = typer.main.get_command(import_module(GROUPS[cmd_name][0]).app)
        group.name = cmd_name
        return group

    def invoke(self, ctx: Context) -> object:
        """Run the command that is named.

        Raises:
            BadParameter: A value is not valid, or missing. What the parser's validation library calls it is left out.
        """
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            variables = getattr(error.param, "envvar", None)
            if error.param is not None and error.param_hint is None and isinstance(variables, list):
                # The parser would show the list as Python writes it, with the names that are there for compatibility.
                error.param_hint = f"'{error.param.opts[0]}' (or {variables[0]})"
            raise

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """List the groups without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in GROUPS.items()])


app = typer.Typer(
    name="metalmark",
    cls=LazyGroup,
    help="Continuous benchmarking on your own metal.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_COLUMNS},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"metalmark {metalmark.__version__}")
        raise typer.Exit


@app.callback()
def root(
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, show_default=False, help="Log more to stderr; twice for every detail."
        ),
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Continuous benchmarking on your own metal."""
    del version
    set_up_logging(Verbosity.of(verbose=verbose, quiet=quiet, environment=os.environ))


def run_application(words: Sequence[str]) -> NoReturn:
    """Parse the words of a command line, do what they say, and exit with its code."""
    try:
        typer.main.get_command(app)(args=list(words), prog_name="metalmark")
    except MetalmarkError as error:
        tell(error)
        sys.exit(exit_status(error))
    sys.exit(0)
