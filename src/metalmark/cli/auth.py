"""``metalmark auth``: sign up and sign in with an address of e-mail."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metalmark.cli.record_flags import only_given
from metalmark.cli.remote import group_of, remote_command
from metalmark.cli.secret_file import SecretFile
from metalmark.cli.view import View, single
from metalmark.model import InputError

if TYPE_CHECKING:
    from metalmark.client import JsonValue, ServerSession

app = group_of("Sign up and sign in.")

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="Address of e-mail.", show_default=False)]
_Invite = Annotated[
    str | None,
    typer.Option(metavar="JWT", help="The invitation that came by e-mail, to join an organization; - reads it."),
]
_InviteFile = Annotated[Path | None, typer.Option(metavar="FILE", help="The file that the invitation is in.")]
_Plan = Annotated[str | None, typer.Option(hidden=True, help="Accepted for compatibility: there are no plans.")]
_Word = Annotated[
    str, typer.Argument(metavar="JWT", help="The token that came by e-mail; - reads it.", show_default=False)
]
_LONGEST = 64 * 1024
_SENT = "a message is on its way; go on with `metalmark auth confirm`"


@remote_command(app, "signup", needs_credential=False, answers="MailedBody")
async def sign_up(
    server: ServerSession,
    *,
    email: Email,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Your name; of the address unless given.")] = None,
    slug: Annotated[str | None, typer.Option(metavar="SLUG", help="Your name in addresses.")] = None,
    invite: _Invite = None,
    invite_file: _InviteFile = None,
    claim: Annotated[str | None, typer.Option(metavar="UUID", help="An organization without members to take.")] = None,
    plan: _Plan = None,
    i_agree: Annotated[bool, typer.Option("--i-agree", help="You agree to the terms of who runs the server.")] = False,
) -> View:
    """Make an account, where the server lets people in.

    Its configuration says who comes in (`auth.signup`): by default, whoever has an invitation.
    """
    del plan
    if not i_agree:
        raise InputError("--i-agree", "not given", "the server takes nobody without it")
    body = only_given(
        {
            "email": email,
            "name": name or email.partition("@")[0],
            "slug": slug,
            "invite": _invitation(invite, invite_file),
            "claim": claim,
            "i_agree": True,
        }
    )
    return single((await server.call("POST", "auth", "signup", body=body)).value, notes=(_SENT,))


@remote_command(app, "login", needs_credential=False, answers="MailedBody")
async def log_in(
    server: ServerSession,
    *,
    email: Email,
    invite: _Invite = None,
    invite_file: _InviteFile = None,
    plan: _Plan = None,
) -> View:
    """Ask for a message with the token that `metalmark auth confirm` takes."""
    del plan
    body = only_given({"email": email, "invite": _invitation(invite, invite_file)})
    return single((await server.call("POST", "auth", "login", body=body)).value, notes=(_SENT,))


@remote_command(app, "confirm", needs_credential=False, answers="SessionBody")
async def confirm(
    server: ServerSession,
    *,
    confirmation: _Word,
    save_token: Annotated[
        Path | None,
        typer.Option("--save-token", metavar="FILE", help="Put the token into a new file that only you can read."),
    ] = None,
) -> View:
    """Sign in with the token of a message.

    The answer has a token of yours, which --key-file takes. Make a key with it: `metalmark key create`.
    """
    with SecretFile(save_token, field="token") as file:
        return file.keep((await server.call("POST", "auth", "confirm", body={"token": _word(confirmation)})).value)


@remote_command(app, "accept", answers="MailedBody")
async def accept(server: ServerSession, *, invitation: _Word) -> View:
    """Join the organization of an invitation."""
    body: JsonValue = {"invite": _word(invitation)}
    return single((await server.call("POST", "auth", "accept", body=body)).value)


def _invitation(given: str | None, file: Path | None) -> str | None:
    if file is None:
        return None if given is None else _word(given)
    if given is not None:
        raise InputError("--invite-file", str(file), "--invite is given too", hint="give one of them")
    try:
        with file.open("rb") as stream:
            return stream.read(_LONGEST).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise InputError("--invite-file", str(file), error.strerror or "it cannot be read") from None


def _word(given: str) -> str:
    """Return a token; what stands in a command line is seen by others, so it may come from standard input."""
    return sys.stdin.readline(_LONGEST).strip() if given == "-" else given
