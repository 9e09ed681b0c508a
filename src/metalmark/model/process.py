"""The process that a run starts: the image's configuration with the user's overrides applied.

Rules: OCI image specification 1.1, "config" (Entrypoint, Cmd, Env, WorkingDir, User); an overridden entrypoint clears
the image's Cmd, as ``docker run --entrypoint`` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from metalmark.model.errors import ProcessRefused

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """The part of an image's configuration that says how to run it."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    """``NAME=value`` entries, in the image's order."""
    workdir: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProcessOverrides:
    """What the user wants different from the image. None means: as the image has it."""

    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    user: str | None = None


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process to start in a box."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    """``NAME=value`` entries, one a name."""
    workdir: str = "/"
    user: str = ""
    """``user``, ``uid``, ``user:group`` or ``uid:gid``; empty is root. Resolved inside the box."""


def resolve_process(config: ImageConfig, overrides: ProcessOverrides) -> Process:
    """Apply overrides to an image's configuration.

    Raises:
        ProcessRefused: Nothing is left to run, or an argument or variable holds a NUL.
    """
    argv = _argv(config, overrides)
    if not argv or not argv[0]:
        raise ProcessRefused(
            "neither the image nor the command line names a command",
            why="there is nothing to run",
            hint="give one after --, or with --entrypoint or --cmd",
        )
    env = _env(config.env, overrides.env)
    for text in (*argv, *env):
        if "\0" in text:
            raise ProcessRefused(f"{text!r} holds a NUL", why="no process can be given that")
    workdir = config.workdir if overrides.workdir is None else overrides.workdir
    user = config.user if overrides.user is None else overrides.user
    return Process(argv=argv, env=env, workdir=workdir or "/", user=user)


def _argv(config: ImageConfig, overrides: ProcessOverrides) -> tuple[str, ...]:
    if overrides.entrypoint is not None:
        return (*overrides.entrypoint, *(overrides.cmd or ()))
    return (*config.entrypoint, *(config.cmd if overrides.cmd is None else overrides.cmd))


def _env(image: Sequence[str], overrides: Mapping[str, str]) -> tuple[str, ...]:
    merged: dict[str, str] = {"PATH": DEFAULT_PATH}
    for entry in image:
        name, equals, value = entry.partition("=")
        if name and equals:
            merged[name] = value
    merged.update(overrides)
    return tuple(f"{name}={value}" for name, value in merged.items())
