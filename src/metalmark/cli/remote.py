"""Commands that ask a server: the flags they share, the session they get, and how their answers are shown."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from metalmark.cli.connection_options import CONNECTION_FLAGS, connection_parameters, connection_settings
from metalmark.cli.logs import Verbosity, shown
from metalmark.cli.view import View, show
from metalmark.model import printable

if TYPE_CHECKING:
    # Typer keeps the parser that it is built on to itself; only signatures need its names.
    from typer._click.core import Context
    from typer._click.formatting import HelpFormatter

    from metalmark.client import Answer, JsonValue, QueryValue, ServerSession

Command = Callable[..., Awaitable[View]]
"""A function ``(server, **flags)`` that returns what is shown."""

_PAGE_ROWS = 255


class RemoteCommand(TyperCommand):
    """Shows the flags of the connection below the command's own."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write arguments, own flags and the connection's, each under its title."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], "Connection": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            kind = "Arguments" if param.param_type_name == "argument" else "Options"
            sections["Connection" if param.name in CONNECTION_FLAGS else kind].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


@dataclass(frozen=True, kw_only=True)
class Paging:
    """Which part of a list is wanted, and in which order."""

    sort: str | None = None
    direction: str | None = None
    per_page: int | None = None
    page: int | None = None
    everything: bool = False

    async def fetch(
        self, server: ServerSession, *segments: str, query: Mapping[str, QueryValue] | None = None
    ) -> Answer:
        """Ask for that part of a list; with ``--all`` for one page after the other, until there is none."""
        wanted = {**(query or {}), "sort": self.sort, "direction": self.direction}
        if not self.everything:
            return await server.call("GET", *segments, query={**wanted, "per_page": self.per_page, "page": self.page})
        rows: list[JsonValue] = []
        page = 1
        while True:
            answer = await server.call("GET", *segments, query={**wanted, "per_page": _PAGE_ROWS, "page": page})
            found = answer.value if isinstance(answer.value, list) else []
            rows += found
            if len(found) < _PAGE_ROWS:
                from metalmark.client import Answer

                return Answer(status=answer.status, value=rows, total=len(rows), request_id=answer.request_id)
            page += 1


def group_of(about: str) -> typer.Typer:
    """Return an empty group of commands.

    Args:
        about: What they are for, one sentence.
    """
    app = typer.Typer(
        help=about,
        rich_markup_mode=None,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    # With a callback a group of one command stays a group.
    app.callback()(_nothing)
    return app


def _nothing() -> None:
    """Stand for a group that does nothing by itself."""


def remote_command(
    app: typer.Typer,
    name: str,
    *aliases: str,
    needs_credential: bool = True,
    sort: tuple[str, ...] = (),
    answers: str | None = None,
    epilog: str | None = None,
    kind: type[RemoteCommand] = RemoteCommand,
) -> Callable[[Command], Command]:
    """Make a command of a function that gets a session and returns a `View`.

    Its own flags are the function's keyword parameters; those of the connection and ``--json`` are added, and those of
    a list's pages when it takes a parameter ``paging``. With a parameter ``as_json`` it shows its data itself.

    Args:
        app: The group.
        name: Its name in the group.
        aliases: Other names, which help does not list.
        needs_credential: Whether it fails before anything is sent when there is no credential.
        sort: What the list can be sorted by.
        answers: Body that the server answers with, by its name in `metalmark.wire`, with ``[]`` for a list of such;
            ``--strict`` holds it to that.
        epilog: Stands below its help.
        kind: How its words are read and its errors told.
    """

    def register(function: Command) -> Command:
        hints = typing.get_type_hints(function, localns={"ServerSession": object, "View": object}, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name], kind=Parameter.KEYWORD_ONLY)
            for parameter in list(inspect.signature(function).parameters.values())[1:]
            if parameter.name not in ("paging", "as_json")
        ]
        paged, shows_itself = "paging" in hints, "as_json" in hints

        @functools.wraps(function)
        def command(**given: object) -> None:
            # One that shows its data itself is told how; what it returns is then never shown as JSON.
            shown_by = functools.partial(function, as_json=given["as_json"]) if shows_itself else function
            given["as_json"] = given["as_json"] and not shows_itself
            _carry_out(shown_by, given, paged=paged, needs_credential=needs_credential, answers=answers)

        del command.__wrapped__
        parameters = [*own, *(_paging_parameters(sort) if paged else ()), _JSON, *connection_parameters()]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, cls=kind, epilog=epilog)(command)
        for alias in aliases:
            app.command(alias, cls=kind, epilog=epilog, hidden=True)(command)
        return function

    return register


def remote_on_request(
    app: typer.Typer, name: str, flag: Parameter, function: Command, *, here: Callable[[bool], None], answers: str
) -> None:
    """Make a list's command that asks a server when a flag says what for, and else shows what is on this machine.

    Args:
        app: The group.
        name: Its name in the group.
        flag: What is asked for; None when it is not given. It is passed on under its name.
        function: As for `remote_command`, with a parameter ``paging``.
        here: Shows what is on this machine; is told whether as JSON. Its docstring is the command's help.
        answers: As for `remote_command`.
    """

    def command(**given: object) -> None:
        if given[flag.name] is None:
            here(bool(given["as_json"]))
        else:
            _carry_out(function, given, paged=True, needs_credential=False, answers=answers)

    parameters = [flag, *_paging_parameters(()), _JSON, *connection_parameters()]
    command.__doc__ = here.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name, cls=RemoteCommand)(command)


_JSON = Parameter(
    "as_json",
    Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--json", help="Print the server's answer as JSON.")],
)


def _paging_parameters(sort: tuple[str, ...]) -> list[Parameter]:
    def parameter(name: str, kind: object, option: object) -> Parameter:
        return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])

    found = (
        [parameter("sort", Literal[sort] | None, typer.Option("--sort", help="What to sort by.", show_default=False))]
        if sort
        else []
    )
    return [
        *found,
        parameter("direction", Literal["asc", "desc"] | None, typer.Option("--direction", help="Up or down.")),
        parameter("per_page", int | None, typer.Option(metavar="N", min=0, max=255, help="Rows a page; usually 8.")),
        parameter("page", int | None, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Which page, from 1.")),
        Parameter(
            "all_pages",
            Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, typer.Option("--all", help="All pages.")],
        ),
    ]


def _carry_out(
    function: Command, given: dict[str, Any], *, paged: bool, needs_credential: bool, answers: str | None
) -> None:
    import anyio

    from metalmark.client import INTERFACE_VERSION, credential_needed, open_session

    as_json = given.pop("as_json")
    shape = answers if given["strict"] else None
    settings = connection_settings(
        {name: given.pop(name) for name in CONNECTION_FLAGS}, environment=os.environ, warn=warn
    )
    if needs_credential and settings.credential is None:
        raise credential_needed()
    if paged:
        given["paging"] = Paging(
            sort=given.pop("sort", None),
            direction=given.pop("direction"),
            per_page=given.pop("per_page"),
            page=given.pop("page"),
            everything=given.pop("all_pages"),
        )

    async def ask() -> View:
        async with open_session(settings, environment=os.environ, notify=say) as server:
            found = await server.version()
            if found.version != INTERFACE_VERSION:
                warn(f"{settings.address} speaks version {found.version}; this command speaks {INTERFACE_VERSION}")
            server.shape = shape
            return await function(server, **given)

    show(anyio.run(ask), as_json=as_json, quiet=shown() >= Verbosity.ERROR)


def say(line: str) -> None:
    """Tell a person something on standard error; not with ``--quiet``."""
    if shown() < Verbosity.ERROR:
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()


def warn(line: str) -> None:
    """Warn a person on standard error; not with ``--quiet``."""
    say(f"warning: {line}")
