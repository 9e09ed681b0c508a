"""The words of `runner run` into a job: every rule on a flag's value, and nothing that touches the machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from metalmark.host import parse_cpu_list
from metalmark.model import (
    MIB,
    InputError,
    JobSpec,
    OutputLimits,
    Platform,
    ProcessOverrides,
    Resources,
    RootfsMode,
    SandboxName,
    format_bytes,
    parse_bytes,
    parse_seconds,
)

MIN_DISK_BYTES = 64 * MIB
MIN_MEMORY_BYTES = 16 * MIB
MAX_MEMORY_BYTES = 64 * 1024 * 1024 * MIB
MAX_VCPUS = 255
MAX_ITERATIONS = 100_000
MAX_TIMEOUT_S = 2**31 - 1
MAX_GRACE_S = 900
DEFAULT_TIMEOUT_S = 300.0
MAX_WORDS = 64
"""Words that one ``--entrypoint`` or ``--cmd`` may take."""
LOG_LEVELS = ("off", "error", "warning", "info", "debug", "trace")
_ENV_NAME = re.compile(r"[^=\0]+")


@dataclass(kw_only=True)
class JobOptions:
    """The values of the flags as they were written; amounts are text with or without a unit."""

    image: str = ""
    command: Sequence[str] = ()
    """The words after ``--``."""
    sandbox: str | None = None
    timeout: str = "300"
    iterations: str = "1"
    allow_failure: bool = False
    entrypoint: Sequence[str] | None = None
    cmd: Sequence[str] | None = None
    env: Sequence[str] = ()
    user: str | None = None
    workdir: str | None = None
    network: bool = False
    output: Sequence[str] = ()
    vcpus: str = "1"
    memory: str = "512"
    disk: str = "1024"
    cpus: str | None = None
    rootfs: str = "overlay"
    max_output_size: str = str(25 * MIB)
    max_file_count: str = "255"
    grace_period: str = "1"
    platform: str = ""
    live: str = "on"
    max_symlinks: str | None = None
    sandbox_log_level: str | None = None
    warnings: list[str] = field(default_factory=list)
    """Filled by `job`: what was understood otherwise than it might have been meant."""

    def job(self) -> JobSpec:
        """Return the job.

        Raises:
            InputError: A value cannot be used; it names the flag and the value.
        """
        if not self.image:
            raise InputError(
                "IMAGE", self.image, "no image is named", hint="metalmark runner run IMAGE, or --image IMAGE"
            )
        self._check_compatibility_flags()
        return JobSpec(
            image=self.image,
            overrides=self._overrides(),
            sandbox=None if self.sandbox is None else _choice("--sandbox", self.sandbox, SandboxName),
            resources=self._resources(),
            cpus=parse_cpu_list(self.cpus, field="--cpus") if self.cpus is not None else (),
            network=self.network,
            rootfs=_choice("--rootfs", self.rootfs, RootfsMode),
            platform=str(Platform.parse(self.platform)) if self.platform else "",
            iterations=_integer("--iter", self.iterations, 0, MAX_ITERATIONS),
            timeout_s=self._timeout_s(),
            grace_s=_seconds("--grace-period", self.grace_period, MAX_GRACE_S),
            allow_failure=self.allow_failure,
            outputs=tuple(_output(pattern) for pattern in self.output),
            output_limits=self._output_limits(),
            live=_choice_of_two("--live", self.live, on="on", off="off"),
        )

    def _check_compatibility_flags(self) -> None:
        if self.max_symlinks is not None:
            _integer("--max-symlinks", self.max_symlinks, 0, 2**32 - 1)
            if self.sandbox not in (None, SandboxName.NONE):
                raise InputError("--max-symlinks", self.max_symlinks, f"it does not go with --sandbox {self.sandbox}")
            self.warnings.append("--max-symlinks has no effect: the kernel resolves links in the image, 40 at most")
        level = self.sandbox_log_level
        if level is not None:
            if level.lower() not in LOG_LEVELS:
                raise InputError(
                    "--sandbox-log-level", level, "there is no such choice", hint=f"use {', '.join(LOG_LEVELS)}"
                )
            if self.sandbox is None:
                raise InputError("--sandbox-log-level", level, "it needs --sandbox", hint="add --sandbox firecracker")
            self.warnings.append("--sandbox-log-level has no effect: -v and -vv show what the sandbox does")

    def _overrides(self) -> ProcessOverrides:
        if self.command and self.cmd is not None:
            raise InputError("--cmd", list(self.cmd), "words after -- say the same thing", hint="give one or the other")
        cmd = tuple(self.command) or (None if self.cmd is None else tuple(self.cmd))
        if self.workdir is not None and not self.workdir.startswith("/"):
            raise InputError("--workdir", self.workdir, "the working directory is an absolute path in the image")
        if self.user == "":
            raise InputError("--user", self.user, "it is empty", hint="leave it out for the image's own user")
        return ProcessOverrides(
            entrypoint=None if self.entrypoint is None else _entrypoint(self.entrypoint),
            cmd=cmd,
            env=dict(_variable(entry) for entry in self.env),
            workdir=self.workdir,
            user=self.user,
        )

    def _resources(self) -> Resources:
        memory_bytes = _bytes("--memory", self.memory, bare_unit=MIB)
        if memory_bytes < MIN_MEMORY_BYTES:
            raise InputError(
                "--memory", self.memory, f"nothing can run in less than {format_bytes(MIN_MEMORY_BYTES)}",
                hint="a bare number counts MiB: --memory 512",
            )  # fmt: skip
        if memory_bytes > MAX_MEMORY_BYTES:
            raise InputError(
                "--memory", self.memory, f"the most is {format_bytes(MAX_MEMORY_BYTES)}",
                hint="a bare number counts MiB; write bytes with a B: 536870912B",
            )  # fmt: skip
        disk_bytes = _bytes("--disk", self.disk, bare_unit=MIB)
        if disk_bytes < MIN_DISK_BYTES:
            raise InputError(
                "--disk", self.disk, f"a file system needs {format_bytes(MIN_DISK_BYTES)} or more",
                hint="a bare number counts MiB: --disk 64",
            )  # fmt: skip
        return Resources(
            vcpus=_integer("--vcpus", self.vcpus, 1, MAX_VCPUS), memory_bytes=memory_bytes, disk_bytes=disk_bytes
        )

    def _output_limits(self) -> OutputLimits:
        size = _bytes("--max-output-size", self.max_output_size, bare_unit=1)
        return OutputLimits(
            stream_bytes=size,
            files_bytes=size,
            file_count=_integer("--max-file-count", self.max_file_count, 0, 2**20),
        )

    def _timeout_s(self) -> float:
        seconds = _seconds("--timeout", self.timeout, MAX_TIMEOUT_S)
        if seconds == 0:
            self.warnings.append(f"--timeout 0 means the default, {DEFAULT_TIMEOUT_S:g} s")
            return DEFAULT_TIMEOUT_S
        return seconds


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Cut the words of a command line at the first ``--``: what is ours, and what replaces the image's CMD."""
    if "--" not in words:
        return list(words), []
    at = list(words).index("--")
    return list(words[:at]), list(words[at + 1 :])


def repeat_flags(
    words: Sequence[str], *, lists: frozenset[str], valued: frozenset[str], image: bool = True
) -> list[str]:
    """Write ``--cmd a b`` as ``--cmd a --cmd b``, so that one occurrence may bring several words.

    A list ends at the next word that begins with ``-``. It takes more than one word only when it cannot swallow the
    image: after the image was named, or anywhere when ``--image`` is among the words.

    Args:
        words: The words before ``--``.
        lists: The flags that take lists.
        valued: All other flags that take the next word as their value.
        image: Whether the command takes an image; where it does not, a list takes all it can get.

    Raises:
        InputError: A list of more than 64 words.
    """
    image_named = not image or any(word == "--image" or word.startswith("--image=") for word in words)
    result: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        name, equals, value = word.partition("=")
        if name in lists:
            taken = [value] if equals else []
            while (image_named or not taken) and at < len(words) and not words[at].startswith("-"):
                taken.append(words[at])
                at += 1
            if len(taken) > MAX_WORDS:
                raise InputError(name, " ".join(taken[:3]) + " …", f"it takes at most {MAX_WORDS} words at a time")
            result += [f"{name}={item}" for item in taken] or [name]
        else:
            result.append(word)
            if word in valued and at < len(words):
                result.append(words[at])
                at += 1
            elif not word.startswith("-"):
                image_named = True
    return result


def token_path(text: str, *, field: str) -> Path:
    """Return the path of a credentials file.

    Raises:
        InputError: It cannot be read.
    """
    path = Path(text)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise InputError(field, text, f"it cannot be read ({error.strerror})") from error


_Choice = TypeVar("_Choice", SandboxName, RootfsMode)


def _choice(flag: str, text: str, kind: type[_Choice]) -> _Choice:
    try:
        return kind(text)
    except ValueError:
        raise InputError(flag, text, "there is no such choice", hint=f"use {', '.join(kind)}") from None


def _choice_of_two(flag: str, text: str, *, on: str, off: str) -> bool:
    if text not in (on, off):
        raise InputError(flag, text, "there is no such choice", hint=f"use {on} or {off}")
    return text == on


def _integer(flag: str, text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"\d{1,20}", text, re.ASCII) or not least <= int(text) <= most:
        raise InputError(flag, text, f"it takes a whole number from {least} to {most}")
    return int(text)


def _seconds(flag: str, text: str, most: int) -> float:
    seconds = parse_seconds(text, field=flag)
    if seconds > most:
        raise InputError(flag, text, f"the most is {most} s")
    return seconds


def _bytes(flag: str, text: str, *, bare_unit: int) -> int:
    return parse_bytes(text, field=flag, bare_unit=bare_unit)


def _variable(entry: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not equals or not _ENV_NAME.fullmatch(name) or "\0" in value:
        raise InputError("--env", entry, "a variable is NAME=VALUE, and the value may be empty")
    return name, value


def _entrypoint(words: Sequence[str]) -> tuple[str, ...]:
    """Understand one empty word as no entrypoint, as `docker run --entrypoint ''` does."""
    return () if list(words) == [""] else tuple(words)


def _output(pattern: str) -> str:
    if not pattern or "\0" in pattern or len(pattern.encode("utf-8", "surrogateescape")) > 4096:
        raise InputError("--output", pattern, "it takes a path or glob of 1 to 4096 bytes")
    return pattern
