"""``metalmark image push|remove`` and the remote list: images in a server's registry."""

from __future__ import annotations

import os
from collections.abc import Callable
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metalmark.cli.remote import Paging, remote_command, remote_on_request
from metalmark.cli.view import View, column, columns, done, listing, moment, size
from metalmark.model import Platform, format_bytes

if TYPE_CHECKING:
    from metalmark.client import ServerSession

IMAGE_HELP = (
    "OCI layout (folder or tar), `docker save` archive (packed or unpacked), or registry reference "
    "HOST/REPOSITORY:TAG; oci:, oci-archive:, docker-archive: and docker:// say which."
)
_TARGET = "PROJECT[/NAME][:TAG] in the server's registry, or HOST/REPOSITORY[:TAG] in another."
_LIST = columns("name", "digest", column("size", show=size), column("pushed", show=moment))
Target = Annotated[str, typer.Argument(metavar="TARGET", help=_TARGET, show_default=False)]
AuthFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Docker config.json or containers auth.json, for other registries.", show_default=False
    ),
]
PlainHttp = Annotated[bool, typer.Option("--plain-http", help="Speak http to another registry, not https.")]


async def push_image(
    server: ServerSession,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help=IMAGE_HELP, show_default=False)],
    target: Target,
    platform: Annotated[
        str, typer.Option(metavar="OS/ARCH[/VARIANT]", help="Push the image for this platform alone, of an index.")
    ] = "",
    parallel: Annotated[int, typer.Option(metavar="COUNT", min=1, max=64, help="Layers sent at once.")] = 4,
    authfile: AuthFile = None,
    plain_http: PlainHttp = False,
) -> View:
    """Push an image into the server's registry; what is there already is not sent again."""
    wanted = Platform.parse(platform) if platform else None
    return await _push(server, image, target, wanted, parallel=parallel, authfile=authfile, plain_http=plain_http)


async def _push(
    server: ServerSession,
    image: str,
    name: str,
    platform: Platform | None,
    *,
    parallel: int,
    authfile: Path | None,
    plain_http: bool,
) -> View:
    from dataclasses import replace

    from metalmark.cli.logs import Verbosity, shown
    from metalmark.cli.run_display import RunDisplay
    from metalmark.client import image_access, image_target
    from metalmark.oci import PushRequest, RegistryAccess, parse_source, push
    from metalmark.system import ensure_private, folders, in_thread

    settings = server.settings
    target = image_target(settings, name)
    access = image_access(settings, target, os.environ, authfile=authfile, plain_http=plain_http)
    request = PushRequest(
        source=parse_source(image),
        target=target,
        access=replace(access, parallel=parallel),
        source_access=RegistryAccess(
            authfile=authfile, environment=os.environ, plain_http=True if plain_http else None
        ),
        platform=platform,
        scratch=await in_thread(ensure_private, folders().cache),
    )
    display = RunDisplay(quiet=shown() >= Verbosity.ERROR)
    try:
        pushed = await push(request, progress=display.progress)
    finally:
        display.close()
    note = (
        f"{pushed.uploaded} of {pushed.blobs} blobs sent, {format_bytes(pushed.uploaded_bytes)} of"
        f" {format_bytes(pushed.bytes)}; the others were there"
    )
    return View(
        value={
            "image": str(pushed.reference),
            "digest": str(pushed.digest),
            "manifests": pushed.manifests,
            "blobs": pushed.blobs,
            "bytes": pushed.bytes,
            "uploaded": pushed.uploaded,
            "uploaded_bytes": pushed.uploaded_bytes,
        },
        rows=(("image", str(pushed.reference)), ("digest", str(pushed.digest))),
        notes=(note,),
    )


async def remove_image(
    server: ServerSession, *, target: Target, authfile: AuthFile = None, plain_http: PlainHttp = False
) -> View:
    """Remove a tag from a registry, or with @DIGEST an image with all its tags."""
    from metalmark.client import image_access, image_target
    from metalmark.oci import delete_image

    settings = server.settings
    reference = image_target(settings, target)
    access = image_access(settings, reference, os.environ, authfile=authfile, plain_http=plain_http)
    await delete_image(reference, access)
    return done(f"removed {reference}")


async def _list_remote(server: ServerSession, *, remote: str, paging: Paging) -> View:
    return listing(await paging.fetch(server, "projects", remote, "images"), _LIST)


def add_commands(app: typer.Typer, list_cached: Callable[[bool], None]) -> None:
    """Add the commands to the group of images.

    Args:
        app: The group.
        list_cached: Lists what is on this machine; is told whether as JSON.
    """
    epilog = "Example: metalmark image push bench-image adder:v1; then: metalmark run --image adder:v1 --spec quiet-8"
    remote_command(app, "push", needs_credential=False, epilog=epilog)(push_image)
    remote_command(app, "remove", "rm")(remove_image)
    about = "List the images that this project has in the server's registry instead."
    option = typer.Option("--remote", metavar="PROJECT", help=about, show_default=False)
    flag = Parameter("remote", Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option])
    remote_on_request(app, "list", flag, _list_remote, here=list_cached, answers="ImageBody[]")
