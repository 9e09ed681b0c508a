"""Flags and arguments that records of the server share, each declared once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metalmark.model import InputError

if TYPE_CHECKING:
    from metalmark.client import JsonValue

UNSET = "_"
"""What is written where a value is to be cleared."""

Name = Annotated[str, typer.Option(metavar="NAME", help="Its name, 1 to 64 bytes.", show_default=False)]
NewName = Annotated[str | None, typer.Option("--name", metavar="NAME", help="A new name.")]
OnlyName = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Only those with exactly this name.")]
Search = Annotated[str | None, typer.Option(metavar="TEXT", help="Only those with this in name, slug or UUID.")]
Slug = Annotated[str | None, typer.Option(metavar="SLUG", help="Its name in addresses; made of the name unless given.")]
NewSlug = Annotated[str | None, typer.Option("--slug", metavar="SLUG", help="A new name in addresses.")]
Also = Annotated[bool, typer.Option("--archived", help="The archived ones too.")]
OnlyArchived = Annotated[bool, typer.Option("--archived", help="Only the archived ones.")]
OnlyRevoked = Annotated[bool, typer.Option("--revoked", help="Only the revoked ones.")]
Archive = Annotated[bool, typer.Option("--archive", help="Put it away: not listed, not used for new work.")]
Unarchive = Annotated[bool, typer.Option("--unarchive", help="Bring it back.")]
Hard = Annotated[bool, typer.Option("--hard", help="Remove it for good; needs an administrator.")]
Truth = Literal["true", "false"]


def archived_of(archive: bool, unarchive: bool) -> bool | None:
    """Return what ``--archive`` and ``--unarchive`` ask for; None when neither is given.

    Raises:
        InputError: Both are given.
    """
    if archive and unarchive:
        raise InputError("--archive", "given", "--unarchive is given too", hint="give one of them")
    return True if archive else False if unarchive else None


def truth_of(text: str | None) -> bool | None:
    """Return the value of a flag that takes ``true`` or ``false``; None when it is not given."""
    return None if text is None else text == "true"


def only_given(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the fields that are not None: an absent field is the server's to choose, or unchanged."""
    return {name: value for name, value in fields.items() if value is not None}


def changes(fields: Mapping[str, JsonValue], *, clearable: Mapping[str, str | None] | None = None) -> JsonValue:
    """Return the body of a change.

    Args:
        fields: What is to change; None is unchanged.
        clearable: Fields that ``_`` clears.

    Raises:
        InputError: Nothing is to change.
    """
    body = only_given(fields)
    for name, value in (clearable or {}).items():
        if value is not None:
            body[name] = None if value == UNSET else value
    if not body:
        raise InputError("update", "no flag", "nothing is said that is to change", hint="see --help for what can")
    return body
