"""The command line's own documentation: help pages and ``docs/reference/cli.md``, made from the application."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer.main

from metalmark.cli.application import HELP_COLUMNS, app

if TYPE_CHECKING:
    # Typer keeps the parser that it is built on to itself; only signatures need its names.
    from typer._click.core import Command, Context

HELP_PAGES: Mapping[str, tuple[str, ...]] = {
    "metalmark.txt": (),
    "metalmark-runner-run.txt": ("runner", "run"),
}
"""Help pages that are shown without importing the application, and the words of their commands."""

_PREFACE = """\
# Command line

Made by `scripts/write-reference`. Every command has `--help`. Standard output carries data, standard error everything
else. Exit codes: [exit-codes.md](exit-codes.md). Shell completion: `metalmark --install-completion`.

Environment: `METALMARK_HOME` moves all folders below one; `METALMARK_LOG` is `debug`, `info`, `warning` or `error`.

Other names: `ls` for `list`, `add` for `create`, `get` for `view`, `edit` for `update`, `rm` for `delete`, `remove` and
`revoke`, `org` for `organization`.
"""


_CONNECTION = "\nConnection:\n"
_CONNECTION_PREFACE = """\
## Connection

Commands that ask a server have these flags too, and `--json`, which prints the server's answer instead of a table.
[server-connection.md](server-connection.md) says where address and key come from without flags.
"""


def help_text(words: tuple[str, ...]) -> str:
    """Return the help of a command as it is shown in a terminal of `HELP_COLUMNS` columns."""
    with _columns(HELP_COLUMNS), _context(words) as context:
        return context.command.get_help(context) + "\n"


def command_reference() -> str:
    """Return ``docs/reference/cli.md``."""
    sections = [_PREFACE, ""]
    for words in _commands((), typer.main.get_command(app)):
        title = " ".join(("metalmark", *words))
        own, heading, connection = help_text(words).partition(_CONNECTION)
        if heading:
            # These flags are the same for every command that has them.
            flags, _, epilog = connection.partition("\n\n")
            sections[1] = f"{_CONNECTION_PREFACE}\n```text\n{flags.rstrip()}\n```\n"
            own += "\nConnection: see above.\n" + (f"\n{epilog}" if epilog.strip() else "")
        sections.append(f"## {title}\n\n```text\n{own.rstrip()}\n```\n")
    return "\n".join(sections)


def _commands(words: tuple[str, ...], command: Command) -> Iterator[tuple[str, ...]]:
    yield words
    names = getattr(command, "list_commands", None)
    if names is None:
        return
    with _context(words) as context:
        for name in names(context):
            member = command.get_command(context, name)  # type: ignore[attr-defined]  # a group, for it lists commands
            if member is not None and not member.hidden:
                yield from _commands((*words, name), member)


@contextmanager
def _context(words: tuple[str, ...]) -> Iterator[Context]:
    """Make the context in which a command's help is shown, without running anything."""
    command = typer.main.get_command(app)
    context = command.make_context("metalmark", [], resilient_parsing=True)
    for word in words:
        member = context.command.get_command(context, word)  # type: ignore[attr-defined]  # words lead through groups
        context = member.make_context(word, [], parent=context, resilient_parsing=True)
    with context:
        yield context


@contextmanager
def _columns(width: int) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    # The formatter leaves two columns free.
    os.environ["COLUMNS"] = str(width + 2)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
