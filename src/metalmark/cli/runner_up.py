"""``metalmark runner up``: serve the jobs of a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metalmark.cli.errors import tell
from metalmark.cli.job_options import LOG_LEVELS
from metalmark.cli.logs import Verbosity, set_up_logging, shown
from metalmark.model import ChannelRefused, InputError, parse_bytes, parse_seconds

if TYPE_CHECKING:
    from metalmark.client import ConnectionSettings
    from metalmark.runner import DaemonSettings, Restart

_MAX_DRAIN_S = 604_800.0


class UpdateChannel(StrEnum):
    """Which versions a server of public messages may offer."""

    STABLE = "stable"
    CANARY = "canary"


Host = Annotated[
    str | None, typer.Option(metavar="URL", help="The server. Else METALMARK_HOST, http://localhost:6610.")
]
Runner = Annotated[
    str, typer.Option(metavar="RUNNER", help="Slug or UUID.", envvar=["METALMARK_RUNNER", "BENCHER_RUNNER"])
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="File with the runner's key; - reads it. Else METALMARK_RUNNER_KEY[_FILE].",
        show_default=False,
    ),
]  # fmt: skip
Key = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="The key itself; others on this machine can see it: use --key-file."),
]
CaFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Authorities (PEM) to trust beside the system's.", show_default=False),
]
InsecureHost = Annotated[
    bool, typer.Option("--insecure-host", help="Accept any certificate, also that of somebody in between.")
]
Slots = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, max=64,
        help="Jobs at the same time, each on CPUs of its own; they still share caches and memory bandwidth.",
    ),
]  # fmt: skip
AllowEmulation = Annotated[
    bool,
    typer.Option("--allow-emulation", help="Take jobs for microVMs also where they are only emulated: no measurement."),
]
AllowNone = Annotated[
    bool,
    typer.Option(
        "--danger-allow-no-sandbox", help="Take jobs whose spec has no sandbox: any submitter runs code on this host.",
        envvar=["METALMARK_DANGER_ALLOW_NO_SANDBOX", "BENCHER_DANGER_ALLOW_NO_SANDBOX"], show_envvar=False,
    ),
]  # fmt: skip
DrainTimeout = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="How long jobs may go on after SIGTERM before they are canceled; seconds, or s, m, h "
        "understood. Without it: until they end.",
    ),
]  # fmt: skip
PollTimeout = Annotated[
    int,
    typer.Option(metavar="SECONDS", min=1, max=900, help="How long a server of public messages looks for a job."),
]
MaxOutputSize = Annotated[
    str, typer.Option(metavar="SIZE", help="Most to keep of each stream, and of all output files together.")
]
MaxFileCount = Annotated[
    int, typer.Option(metavar="N", min=0, max=1_000_000, help="Most output files to keep of an iteration.")
]
MaxSymlinks = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="Accepted for compatibility: links are resolved by the kernel."),
]
GracePeriod = Annotated[
    int, typer.Option(metavar="SECONDS", min=1, max=900, help="Between the polite and the forced end of a process.")
]
SandboxLogLevel = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="Accepted for compatibility: -v and -vv show more.")
]
OciRuntime = Annotated[
    str | None, typer.Option(metavar="PATH", help="OCI runtime for containers; else runc, else crun.")
]
NoAutoUpdate = Annotated[
    bool,
    typer.Option(
        "--no-auto-update", help="Stay at this version, whatever the server offers.",
        envvar=["METALMARK_NO_AUTO_UPDATE", "BENCHER_NO_AUTO_UPDATE"], show_envvar=False,
    ),
]  # fmt: skip
Channel = Annotated[
    UpdateChannel | None,
    typer.Option(
        "--update-channel", help="Accepted for compatibility: an operator publishes one version.",
        envvar=["METALMARK_UPDATE_CHANNEL", "BENCHER_UPDATE_CHANNEL"], show_envvar=False, show_default=False,
    ),
]  # fmt: skip
MaxDownloadSize = Annotated[
    int | None,
    typer.Option(metavar="BYTES", min=1, help="Largest update that is fetched; 524288000 without it."),
]


def add_runner_up(app: typer.Typer) -> None:
    """Add the command to the group ``runner``."""
    app.command("up")(up)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the command was asked for."""

    daemon: DaemonSettings
    auto_update: bool
    max_download_bytes: int
    key_variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What `_take_key` took out of the environment: another version of this program needs it again."""


def up(  # noqa: PLR0917  # the flags, all given by name
    runner: Runner,
    host: Host = None,
    key_file: KeyFile = None,
    key: Key = None,
    ca_file: CaFile = None,
    insecure_host: InsecureHost = False,
    slots: Slots = 1,
    allow_emulation: AllowEmulation = False,
    danger_allow_no_sandbox: AllowNone = False,
    drain_timeout: DrainTimeout = None,
    poll_timeout: PollTimeout = 55,
    max_output_size: MaxOutputSize = "26214400",
    max_file_count: MaxFileCount = 255,
    max_symlinks: MaxSymlinks = None,
    grace_period: GracePeriod = 1,
    sandbox_log_level: SandboxLogLevel = None,
    oci_runtime: OciRuntime = None,
    no_auto_update: NoAutoUpdate = False,
    update_channel: Channel = None,
    max_download_size: MaxDownloadSize = None,
) -> None:
    """Serve the jobs of a server on this machine, until told to stop.

    SIGTERM and SIGINT end it: no more jobs are taken, those that run are seen through, and their results are sent. A
    second signal cancels them. Results that the server did not take are kept, and sent at the next start. Exit code: 0,
    77 when the server refuses the runner's key, 1 for another fault, 2 for wrong usage.
    """
    from metalmark.model import OutputLimits
    from metalmark.runner import MAX_DOWNLOAD_BYTES, DaemonSettings, SessionPace
    from metalmark.sandbox import DriverSettings

    # What happens on a runner belongs into its log.
    set_up_logging(min(shown(), Verbosity.INFO) if shown() is not Verbosity.ERROR else Verbosity.ERROR)
    for flag, value in (("--update-channel", update_channel), ("--max-download-size", max_download_size)):
        if no_auto_update and value is not None:
            raise InputError(flag, str(value), "--no-auto-update is given too", hint="give one of them")
    _check_compatibility(max_symlinks, sandbox_log_level)
    connection = _connection(os.environ, host=host, key_file=key_file, key=key, ca_file=ca_file, insecure=insecure_host)
    key_variables = _take_key(os.environ)
    output_bytes = parse_bytes(max_output_size, field="--max-output-size")
    daemon = DaemonSettings(
        connection=connection,
        runner=_named(runner),
        slots=slots,
        drain_timeout_s=None if drain_timeout is None else _drain_s(drain_timeout),
        allow_emulation=allow_emulation,
        drivers=DriverSettings(oci_runtime=oci_runtime, allow_none=danger_allow_no_sandbox),
        output_limits=OutputLimits(stream_bytes=output_bytes, files_bytes=output_bytes, file_count=max_file_count),
        grace_s=float(grace_period),
        pace=replace(SessionPace(), public_poll_s=poll_timeout),
    )
    asked = _Asked(
        daemon=daemon,
        auto_update=not no_auto_update,
        max_download_bytes=max_download_size or MAX_DOWNLOAD_BYTES,
        key_variables=key_variables,
    )
    _serve(asked)


def _serve(asked: _Asked) -> None:
    from metalmark.cli.async_command import run_async
    from metalmark.cli.standard_error import unblocked_stderr
    from metalmark.runner import EXIT_REFUSED

    with unblocked_stderr():
        try:
            restart = run_async(lambda: _run(asked))
        except ChannelRefused as error:
            tell(error)
            raise typer.Exit(EXIT_REFUSED) from None
    if restart is not None:
        from metalmark.system import replace_process

        sys.stderr.flush()
        replace_process(restart.program, sys.argv[1:], {**os.environ, **asked.key_variables})


async def _run(asked: _Asked) -> Restart | None:
    from metalmark.cli.runner_view import watched
    from metalmark.cli.stop_signals import heeding_signals
    from metalmark.runner import StopRequest, find_updates, run_daemon
    from metalmark.system import in_thread

    daemon, stop = asked.daemon, StopRequest()
    updates = await in_thread(
        lambda: find_updates(
            daemon.connection,
            wanted=asked.auto_update,
            max_download_bytes=asked.max_download_bytes,
            environment=os.environ,
            arguments=sys.argv[1:],
        )
    )
    async with heeding_signals(stop), watched(str(daemon.connection.address), daemon.runner) as observer:
        return await run_daemon(daemon, environment=os.environ, stop=stop, updates=updates, observer=observer)


def _connection(
    environment: Mapping[str, str],
    *,
    host: str | None,
    key_file: Path | None,
    key: str | None,
    ca_file: Path | None,
    insecure: bool,
) -> ConnectionSettings:
    from metalmark.client import ConnectionSettings, Trust, find_address, find_runner_key, proxies_of

    address = find_address(host=host, environment=environment)
    credential = find_runner_key(key=key, key_file=key_file, environment=environment)
    if credential.exposed:
        _warn(credential.exposed)
    if address.scheme == "http" and not address.is_local:
        _warn(f"the key goes to {address} without encryption; use https://")
    if insecure:
        _warn("the server's certificate is not checked (--insecure-host)")
    certificate = environment.get("SSL_CLIENT_CERT")
    return ConnectionSettings(
        address=address,
        credential=credential,
        trust=Trust(insecure=insecure, ca_file=ca_file, client_certificate=Path(certificate) if certificate else None),
        proxies=proxies_of(environment),
    )


def _take_key(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Take the key out of the environment, which every tool that a runner starts would inherit."""
    from metalmark.client import RUNNER_KEY_VARIABLES

    return {name: environment.pop(name) for name in RUNNER_KEY_VARIABLES if name in environment}


def _named(runner: str) -> str:
    from metalmark.model import parse_resource_id

    return str(parse_resource_id(runner, field="--runner"))


def _drain_s(text: str) -> float:
    seconds = parse_seconds(text, field="--drain-timeout")
    if seconds > _MAX_DRAIN_S:
        raise InputError("--drain-timeout", text, f"the most is {_MAX_DRAIN_S:g} s")
    return seconds


def _check_compatibility(max_symlinks: int | None, log_level: str | None) -> None:
    if max_symlinks is not None:
        _warn("--max-symlinks has no effect: the kernel resolves links in the image, 40 at most")
    if log_level is not None:
        if log_level.lower() not in LOG_LEVELS:
            raise InputError("--sandbox-log-level", log_level, "there is no such choice", hint=", ".join(LOG_LEVELS))
        _warn("--sandbox-log-level has no effect: -v and -vv show what the sandbox does")


def _warn(text: str) -> None:
    import structlog

    structlog.get_logger(__name__).warning(text)
