"""Carries out ``runner run``: surroundings, signals, display, result."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from metalmark.cli.errors import tell
from metalmark.cli.job_options import token_path
from metalmark.cli.run_display import RunDisplay
from metalmark.cli.stop_signals import heeding_signals
from metalmark.host import read_topology
from metalmark.model import InputError, JobSpec, MetalmarkError, Platform, RunResult, StableError
from metalmark.oci import ImageCache, RegistryAccess, parse_source
from metalmark.render import run_table
from metalmark.runner import (
    CachedImages,
    ExecutionContext,
    LiveOutput,
    MachineSandboxes,
    RunRecord,
    StopRequest,
    as_metalmark_error,
    check_target,
    execute,
    save_run,
    spool_folder,
    write_result,
)
from metalmark.sandbox import DriverSettings, sweep
from metalmark.system import Folders, ensure_private, folders, in_thread

_STDOUT, _STDERR = 1, 2
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Everything that ``runner run`` was asked for."""

    spec: JobSpec
    as_json: bool = False
    quiet: bool = False
    save: Path | None = None
    token: str | None = None
    token_file: str | None = None
    authfile: str | None = None
    plain_http: bool = False
    oci_runtime: str | None = None
    allow_none: bool = False
    debug_boot: bool = False
    warnings: tuple[str, ...] = ()


def carry_out(request: RunRequest, environment: Mapping[str, str]) -> int:
    """Run to the end and return the exit code.

    Raises:
        InputError: Something that was given cannot be used; nothing was run.
        NoPermission, NoSpace: The folders cannot be used.
    """
    if request.save is not None:
        check_target(request.save)
    if request.spec.image and request.spec.iterations:
        parse_source(request.spec.image)
    outcome = anyio.run(_carry_out, request, environment)
    if isinstance(outcome, MetalmarkError):
        raise outcome
    return outcome


async def _carry_out(request: RunRequest, environment: Mapping[str, str]) -> int | MetalmarkError:
    display = RunDisplay(quiet=request.quiet)
    for warning in request.warnings:
        display.warned(warning)
    if request.token is not None:
        display.warned("--token is seen by everybody who lists processes: use --token-file or --authfile")
    stop = StopRequest()
    try:
        async with heeding_signals(stop, first=lambda: _say_stopping(display)):
            return await _run_and_show(request, environment, stop, display)
    except ExceptionGroup as group:
        # The task group that listens for signals wraps what is raised inside it.
        return as_metalmark_error(group)
    finally:
        display.close()


async def _run_and_show(
    request: RunRequest, environment: Mapping[str, str], stop: StopRequest, display: RunDisplay
) -> int:
    places = folders(environment)
    for place in (places.state, places.cache, places.run):
        ensure_private(place)
    await in_thread(sweep, places)
    with spool_folder(places.state / "spool") as spool, _access(request, environment, spool) as access:
        live = LiveOutput(stdout=_STDERR if request.as_json else _STDOUT, stderr=_STDERR)
        context = ExecutionContext(
            images=CachedImages(ImageCache(places.cache), access),
            sandboxes=MachineSandboxes(_settings(request, places)),
            folders=places,
            spool=spool,
            topology=read_topology(),
            stop=stop,
            live=live,
            keep_output=request.as_json or request.save is not None,
            debug_boot=request.debug_boot,
        )
        record = await execute(request.spec, context=context, observer=display)
        display.close()
        if live.within_line:
            display.say("")
        return _show(record, request, display)


def _show(record: RunRecord, request: RunRequest, display: RunDisplay) -> int:
    result = record.result
    if result.error is not None:
        tell(_error_of(result))
    if request.as_json:
        write_result(record, sys.stdout)
        sys.stdout.flush()
    elif result.iterations:
        display.say(run_table(result).rstrip("\n"))
    if request.quiet or request.as_json:
        _tell_iteration_errors(result)
    if request.save is not None:
        save_run(record, request.save)
    return result.exit_code


def _error_of(result: RunResult) -> MetalmarkError:
    assert result.error is not None
    return StableError(result.error.message, hint=result.error.hint)


def _tell_iteration_errors(result: RunResult) -> None:
    for iteration in result.iterations:
        if iteration.error is not None:
            tell(StableError(iteration.error.message, hint=iteration.error.hint))


def _settings(request: RunRequest, places: Folders) -> DriverSettings:
    settings = DriverSettings(folders=places, oci_runtime=request.oci_runtime, allow_none=request.allow_none)
    if not request.spec.platform:
        return settings
    wanted = Platform.parse(request.spec.platform)
    machine = _MACHINES.get(wanted.architecture)
    if wanted.os != "linux" or machine is None:
        raise InputError(
            "--platform", request.spec.platform, "no sandbox here runs that", hint="use linux/amd64 or linux/arm64"
        )
    return settings if machine == platform.machine() else replace(settings, machine=machine)


@contextmanager
def _access(request: RunRequest, environment: Mapping[str, str], spool: Path) -> Iterator[RegistryAccess]:
    given = [
        flag
        for flag, value in (
            ("--token", request.token),
            ("--token-file", request.token_file),
            ("--authfile", request.authfile),
        )
        if value is not None
    ]
    if len(given) > 1:
        raise InputError(given[1], "…", f"{given[0]} is given too", hint="give one of them")
    token_file = None
    if request.token is not None:
        token_file = spool / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(request.token, encoding="utf-8")
    elif request.token_file is not None:
        token_file = token_path(request.token_file, field="--token-file")
    authfile = token_path(request.authfile, field="--authfile") if request.authfile is not None else None
    yield RegistryAccess(
        token_file=token_file,
        authfile=authfile,
        environment=environment,
        plain_http=True if request.plain_http else None,
    )


def _say_stopping(display: RunDisplay) -> None:
    if os.isatty(_STDERR):
        display.say("stopping; once more to force")
