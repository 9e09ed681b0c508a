"""``metalmark runner``: run benchmarks on this machine; the runners that a server knows are in ``runner_records``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

from metalmark.cli.errors import exit_status, tell
from metalmark.cli.job_options import JobOptions, repeat_flags, split_words
from metalmark.cli.logs import Verbosity, set_up_logging, shown
from metalmark.cli.runner_records import add_runner_records
from metalmark.cli.runner_service import add_runner_service
from metalmark.model import InputError

if TYPE_CHECKING:
    from typer._click.core import Context  # only for a signature; Typer has no public name for it

app = typer.Typer(
    help="Run benchmarks on this machine, and look after a server's runners.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_LISTS = frozenset(("--entrypoint", "--cmd"))
_AFTER_DASHES = "metalmark.after_dashes"


class _RunCommand(TyperCommand):
    """Understands ``-- CMD…`` and flags that take several words, which the parser below it does not."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Take the command after ``--`` out of the words, and write lists as repeated flags."""
        own, ctx.meta[_AFTER_DASHES] = split_words(args)
        valued = {name for option in self.params if not getattr(option, "is_flag", False) for name in option.opts}
        # The parser's own words for too many arguments do not say what would be right.
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, repeat_flags(own, lists=_LISTS, valued=frozenset(valued) - _LISTS))
        if rest and not ctx.resilient_parsing:
            raise InputError(
                "IMAGE", rest[0], "one image is named already", hint=f"put a command after --: -- {shlex.join(rest)}"
            )
        return rest

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """Name what may follow the flags."""
        return [*super().collect_usage_pieces(ctx), "[-- CMD...]"]


_EPILOG = (
    "Exit code: the benchmark's own; 124 time-out, 125 a fault that is not the benchmark's, 126 not executable, "
    "127 not found, 128+N ended by signal N, 2 wrong usage. Standard output carries the benchmark's (or, with --json, "
    "one JSON object); everything else goes to standard error."
)


@app.callback()
def group() -> None:
    """Run benchmarks on this machine."""


@app.command("run", cls=_RunCommand, epilog=_EPILOG)
def run(  # noqa: PLR0917  # the signature is the table of flags, all given by name
    context: typer.Context,
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="IMAGE",
            help="OCI layout (folder or tar), `docker save` archive (packed or unpacked), or registry reference; "
            "oci:, oci-archive:, docker-archive: and docker:// say which.",
            show_default=False,
        ),
    ] = None,
    image_flag: Annotated[
        str | None, typer.Option("--image", metavar="IMAGE", help="The image, instead of the argument.")
    ] = None,
    sandbox: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="firecracker, qemu, container or none. Without it: the best that works here."
        ),
    ] = None,
    timeout: Annotated[
        str, typer.Option(metavar="TIME", help="Limit of one iteration, from its exec; s, m, h understood; 0 is 300.")
    ] = "300",
    iterations: Annotated[str, typer.Option("--iter", metavar="N", help="Iterations; 0 runs nothing.")] = "1",
    allow_failure: Annotated[
        bool, typer.Option("--allow-failure", help="Go on after a failed iteration, and exit with 0.")
    ] = False,
    entrypoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD...", help="Replace the image's ENTRYPOINT, and drop its CMD; '' is none.", show_default=False
        ),
    ] = None,
    cmd: Annotated[
        list[str] | None, typer.Option(metavar="WORD...", help="Replace the image's CMD.", show_default=False)
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set a variable; repeatable.", show_default=False)
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="USER[:GROUP]", help="Run as this user of the image, by name or number.")
    ] = None,
    workdir: Annotated[str | None, typer.Option(metavar="DIR", help="Working directory in the image.")] = None,
    network: Annotated[
        bool, typer.Option("--network", help="Give the benchmark a network; never this machine's own services.")
    ] = False,
    output: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH", help="File or glob to collect after each iteration; repeatable.", show_default=False
        ),
    ] = None,
    vcpus: Annotated[str, typer.Option(metavar="N", help="Virtual CPUs.")] = "1",
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory; a bare number counts MiB.")] = "512",
    disk: Annotated[
        str, typer.Option(metavar="SIZE", help="Writable disk, 64 or more; a bare number counts MiB.")
    ] = "1024",
    cpus: Annotated[
        str | None, typer.Option(metavar="LIST", help="CPUs to bind to, like 2-3,6. Without it: chosen by placement.")
    ] = None,
    rootfs: Annotated[
        str, typer.Option(metavar="MODE", help="overlay: read-only base with scratch; ext4: one writable image.")
    ] = "overlay",
    max_output_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Most to keep of each stream, and of all output files together.")
    ] = "26214400",
    max_file_count: Annotated[str, typer.Option(metavar="N", help="Most output files to keep.")] = "255",
    max_symlinks: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Accepted for compatibility: links are resolved by the kernel, which allows 40."
        ),
    ] = None,
    grace_period: Annotated[
        str, typer.Option(metavar="TIME", help="Time between the polite and the forced end of the benchmark.")
    ] = "1",
    token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="Bearer token for the registry; others can see it: use --token-file."),
    ] = None,
    token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="File with a bearer token for the registry.")
    ] = None,
    authfile: Annotated[
        str | None, typer.Option(metavar="FILE", help="Docker config.json or containers auth.json.")
    ] = None,
    plain_http: Annotated[bool, typer.Option("--plain-http", help="Speak http to the registry, not https.")] = False,
    platform: Annotated[
        str, typer.Option(metavar="OS/ARCH", help="Platform of the image. Without it: this machine's.")
    ] = "",
    live: Annotated[
        str, typer.Option(metavar="on|off", help="off holds output in the box until the benchmark has ended.")
    ] = "on",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; the benchmark's output goes to standard error.")
    ] = False,
    save: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keep result.json, raw streams and output files in a new or empty folder."),
    ] = None,
    oci_runtime: Annotated[
        str | None, typer.Option(metavar="PATH", help="OCI runtime of the sandbox container: runc, crun or a path.")
    ] = None,
    danger_allow_no_sandbox: Annotated[
        bool,
        typer.Option("--danger-allow-no-sandbox", help="Allow --sandbox none: the image's programs run on this host."),
    ] = False,
    sandbox_log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="Accepted for compatibility, with --sandbox: off, error … trace; see -v."),
    ] = None,
    debug_boot: Annotated[
        bool, typer.Option("--debug-boot", help="Attach a serial console to the microVM and keep its log.")
    ] = False,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Log more to standard error.")
    ] = 0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Neither progress nor table; only the benchmark's output and errors.")
    ] = False,
) -> None:
    """Run an OCI image's benchmark in a sandbox on this machine.

    Words after -- replace the image's CMD, as `docker run IMAGE CMD` does.
    """
    try:
        if verbose or quiet:
            set_up_logging(Verbosity.of(verbose=verbose, quiet=quiet, environment=os.environ))
        options = JobOptions(
            image=_image(image, image_flag),
            command=context.meta[_AFTER_DASHES],
            sandbox=sandbox,
            timeout=timeout,
            iterations=iterations,
            allow_failure=allow_failure,
            entrypoint=entrypoint or None,
            cmd=cmd or None,
            env=env or (),
            user=user,
            workdir=workdir,
            network=network,
            output=output or (),
            vcpus=vcpus,
            memory=memory,
            disk=disk,
            cpus=cpus,
            rootfs=rootfs,
            max_output_size=max_output_size,
            max_file_count=max_file_count,
            max_symlinks=max_symlinks,
            grace_period=grace_period,
            platform=platform,
            live=live,
            sandbox_log_level=sandbox_log_level,
        )
        spec = options.job()
        # From here on it takes the runner, and everything that the runner takes.
        from metalmark.cli.run_command import RunRequest, carry_out

        status = carry_out(
            RunRequest(
                spec=spec,
                as_json=as_json,
                quiet=shown() >= Verbosity.ERROR,
                save=Path(save) if save is not None else None,
                token=token,
                token_file=token_file,
                authfile=authfile,
                plain_http=plain_http,
                oci_runtime=oci_runtime,
                allow_none=danger_allow_no_sandbox,
                debug_boot=debug_boot,
                warnings=tuple(options.warnings),
            ),
            os.environ,
        )
    except (Exception, KeyboardInterrupt) as error:
        # Whatever it is: 1 would be mistaken for the benchmark's own exit code.
        tell(error)
        raise typer.Exit(exit_status(error, running=True)) from error
    raise typer.Exit(status)


def _image(positional: str | None, flag: str | None) -> str:
    if positional is not None and flag is not None:
        raise InputError("IMAGE", positional, f"--image {flag} names one already", hint="put the command after --")
    return positional if positional is not None else flag or ""


add_runner_records(app)
add_runner_service(app)
