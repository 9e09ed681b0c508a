"""``metalmark runner``: run benchmarks on this machine; the runners that a server knows are in ``runner_records``."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from metalmark.cli import local_run_flags as flags
from metalmark.cli.dashed_command import AFTER_DASHES, DashedCommand
from metalmark.cli.errors import exit_status, tell
from metalmark.cli.job_options import JobOptions
from metalmark.cli.local_job_file import is_job_file, with_job_file
from metalmark.cli.logs import Verbosity, set_up_logging, shown
from metalmark.cli.runner_records import add_runner_records
from metalmark.cli.runner_service import add_runner_service
from metalmark.cli.runner_up import add_runner_up
from metalmark.model import InputError

app = typer.Typer(
    help="Run benchmarks on this machine, and look after a server's runners.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class _RunCommand(DashedCommand):
    several = frozenset(("--entrypoint", "--cmd"))
    only_one = ("IMAGE", "one image is named already")


_EPILOG = (
    "Exit code: the benchmark's own; 124 time-out, 125 a fault that is not the benchmark's, 126 not executable, "
    "127 not found, 128+N ended by signal N, 2 wrong usage. Standard output carries the benchmark's (or, with --json, "
    "one JSON object); everything else goes to standard error."
)


@app.callback()
def group() -> None:
    """Run benchmarks on this machine."""


@app.command("run", cls=_RunCommand, epilog=_EPILOG)
def run(  # noqa: PLR0917  # the flags, all given by name
    context: typer.Context,
    image: flags.ImageArgument = None,
    image_flag: flags.ImageFlag = None,
    sandbox: flags.Sandbox = None,
    timeout: flags.Timeout = "300",
    iterations: flags.Iterations = "1",
    allow_failure: flags.AllowFailure = False,
    entrypoint: flags.Entrypoint = None,
    cmd: flags.Cmd = None,
    env: flags.Env = None,
    user: flags.User = None,
    workdir: flags.Workdir = None,
    network: flags.Network = False,
    output: flags.Output = None,
    vcpus: flags.Vcpus = "1",
    memory: flags.Memory = "512",
    disk: flags.Disk = "1024",
    cpus: flags.Cpus = None,
    rootfs: flags.Rootfs = "overlay",
    max_output_size: flags.MaxOutputSize = "26214400",
    max_file_count: flags.MaxFileCount = "255",
    max_symlinks: flags.MaxSymlinks = None,
    grace_period: flags.GracePeriod = "1",
    token: flags.Token = None,
    token_file: flags.TokenFile = None,
    authfile: flags.Authfile = None,
    plain_http: flags.PlainHttp = False,
    platform: flags.Platform = "",
    live: flags.Live = "on",
    as_json: flags.AsJson = False,
    save: flags.Save = None,
    oci_runtime: flags.OciRuntime = None,
    danger_allow_no_sandbox: flags.DangerAllowNoSandbox = False,
    sandbox_log_level: flags.SandboxLogLevel = None,
    debug_boot: flags.DebugBoot = False,
    verbose: flags.Verbose = 0,
    quiet: flags.Quiet = False,
) -> None:
    """Run an OCI image's benchmark in a sandbox on this machine.

    IMAGE may be a job file, FILE.toml; flags beat what it says.

    Words after -- replace the image's CMD, as `docker run IMAGE CMD` does.
    """
    try:
        if verbose or quiet:
            set_up_logging(Verbosity.of(verbose=verbose, quiet=quiet, environment=os.environ))
        options = JobOptions(
            image=_image(image, image_flag),
            command=context.meta[AFTER_DASHES],
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
        if is_job_file(image or ""):
            spec = with_job_file(options, image or "", image=image_flag, given=_given(context))
        else:
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


def _given(context: typer.Context) -> frozenset[str]:
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name != "DEFAULT")


def _image(positional: str | None, flag: str | None) -> str:
    if positional is not None and flag is not None and not is_job_file(positional):
        raise InputError("IMAGE", positional, f"--image {flag} names one already", hint="put the command after --")
    return positional if positional is not None else flag or ""


add_runner_records(app)
add_runner_service(app)
add_runner_up(app)
