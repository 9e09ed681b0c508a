"""``metalmark image``: make images of files, look into them, and keep the local cache in order."""

from __future__ import annotations

import json
import os
import platform as machine
import sys
from pathlib import Path
from typing import Annotated

import typer

from metalmark.cli.image_registry import IMAGE_HELP, add_commands
from metalmark.model import ImageConfig, InputError, Platform, parse_bytes, printable

app = typer.Typer(
    help="Make OCI images of files, look into images, and keep the local cache in order.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output instead of text.")]


@app.callback()
def group() -> None:
    """Make OCI images of files, look into images, and keep the local cache in order."""


@app.command(
    "pack",
    epilog="Example: metalmark image pack ./bench:/opt/bench ./data:/data --entrypoint /opt/bench -o bench-image; "
    "then: metalmark runner run bench-image",
)
def pack(  # noqa: PLR0917 - the signature is the table of flags, all given by name
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR|FILE[:TARGET]...",
            help="A folder's content goes to /, a file to /NAME; or to TARGET, an absolute path in the image.",
            show_default=False,
        ),
    ],
    entrypoint: Annotated[
        list[str] | None,
        typer.Option(metavar="WORD", help="Program that the image runs; repeat it for fixed arguments."),
    ] = None,
    cmd: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Arguments that a user may replace; repeatable.")
    ] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Set a variable; repeatable.")] = None,
    workdir: Annotated[str, typer.Option(metavar="DIR", help="Working directory in the image.")] = "",
    user: Annotated[str, typer.Option(metavar="USER", help="User in the image: a name or uid, with :group.")] = "",
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Add a label; repeatable.")] = None,
    layout: Annotated[
        Path | None, typer.Option("-o", "--layout", metavar="LAYOUT", help="Write an OCI layout folder, or add to one.")
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option("-t", "--archive", metavar="ARCHIVE", help="Write a tar file, which `docker load` reads as well."),
    ] = None,
    tag: Annotated[str, typer.Option(metavar="TAG", help="Name of the image in the layout or archive.")] = "latest",
    platform: Annotated[
        str, typer.Option(metavar="OS/ARCH", help="Platform of the programs; without it this machine's.")
    ] = "",
    compress: Annotated[
        str, typer.Option(metavar="HOW", help="none, gzip or zstd; only none is the same on every machine.")
    ] = "none",
    as_json: Json = False,
) -> None:
    """Make an OCI image of files, without Docker; the same files always give the same digest."""
    from metalmark.cli.image_display import packed_json, packed_text
    from metalmark.oci import Compression, PackRequest, PackSource
    from metalmark.oci import pack as pack_image

    if (layout is None) == (archive is None):
        raise InputError(
            "--layout" if layout is None else "--archive", "" if archive is None else str(archive),
            "nowhere to write the image is named" if layout is None else f"--layout {layout} names a place already",
            hint="-o FOLDER writes an OCI layout, -t FILE a tar file: give one of them",
        )  # fmt: skip
    if compress not in tuple(Compression):
        raise InputError("--compress", compress, "there is no such choice", hint="use none, gzip or zstd")
    if workdir and not workdir.startswith("/"):
        raise InputError("--workdir", workdir, "the working directory is an absolute path in the image")
    request = PackRequest(
        sources=tuple(PackSource.parse(text) for text in sources),
        config=ImageConfig(
            entrypoint=tuple(entrypoint or ()),
            cmd=tuple(cmd or ()),
            env=tuple("=".join(_pair("--env", text)) for text in env or ()),
            workdir=workdir,
            user=user,
            labels=dict(_pair("--label", text) for text in label or ()),
        ),
        platform=_platform(platform),
        tag=tag,
        compression=Compression(compress),
    )
    packed = pack_image(request, (archive or layout or Path()).absolute(), archive=archive is not None)
    _show(packed_json(packed), packed_text(packed), as_json=as_json)


@app.command("inspect")
def inspect(  # noqa: PLR0917 - the signature is the table of flags, all given by name
    image: Annotated[str, typer.Argument(metavar="IMAGE", help=IMAGE_HELP, show_default=False)],
    platform: Annotated[
        str, typer.Option(metavar="OS/ARCH[/VARIANT]", help="Which image of an index; without it this machine's.")
    ] = "",
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bearer token for the registry; sent nowhere else.")
    ] = None,
    authfile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Docker config.json or containers auth.json with credentials.")
    ] = None,
    plain_http: Annotated[bool, typer.Option("--plain-http", help="Speak http to the registry, not https.")] = False,
    as_json: Json = False,
) -> None:
    """Show what an image is for, what it runs and what it is made of. Its layers are not fetched."""
    import anyio

    from metalmark.cli.image_display import description_json, description_text
    from metalmark.oci import ImageCache, ImageDescription, RegistryAccess, parse_source
    from metalmark.oci import inspect as inspect_image
    from metalmark.system import folders

    source = parse_source(image)
    access = RegistryAccess(
        token_file=token_file, authfile=authfile, environment=os.environ, plain_http=True if plain_http else None
    )
    wanted = _platform(platform)

    async def ask() -> ImageDescription:
        with ImageCache(folders().cache) as cache:
            return await inspect_image(source, cache=cache, platform=wanted, access=access)

    found = anyio.run(ask)
    _show(description_json(found), description_text(found), as_json=as_json)


def list_cached(as_json: bool) -> None:
    """List cached images and root file systems with their sizes, most recently used first."""
    from metalmark.cli.image_display import Held, held_json, held_text
    from metalmark.oci import ImageCache, rootfs_cache
    from metalmark.system import ensure_private, folders

    with ImageCache(ensure_private(folders().cache)) as cache:
        held = Held(
            images=tuple(cache.images_held()),
            stored_bytes=sum(path.stat().st_size for _, path in cache.stored()),
            rootfs=rootfs_cache(cache).entries()[::-1],
        )
    _show(held_json(held), held_text(held), as_json=as_json)


@app.command("gc")
def gc(
    max_size: Annotated[
        str, typer.Option(metavar="SIZE", help="What may stay, each of images and root file systems; 0 removes all.")
    ] = "20G",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove the least recently used images and root file systems, never what is in use."""
    from metalmark.cli.image_display import CleanUp, clean_up_json, clean_up_text, would_go
    from metalmark.oci import ImageCache, collect, rootfs_cache
    from metalmark.system import ensure_private, folders

    limit = parse_bytes(max_size, field="--max-size")
    with ImageCache(ensure_private(folders().cache)) as cache:
        files = rootfs_cache(cache)
        before = files.entries()
        done = CleanUp(
            dry_run=dry_run,
            rootfs=would_go(before, limit) if dry_run else files.collect(limit),
            rootfs_before=before,
            images=collect(cache, max_bytes=limit, dry_run=dry_run),
        )
    _show(clean_up_json(done), clean_up_text(done), as_json=as_json)


add_commands(app, list_cached)


def _platform(text: str) -> Platform:
    return Platform.parse(text) if text else Platform.of_machine(machine.machine())


def _pair(field: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or "\0" in text:
        raise InputError(field, text, "it is not KEY=VALUE")
    return name, value


def _show(document: dict[str, object], text: str, *, as_json: bool) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n" if as_json else printable(text))
