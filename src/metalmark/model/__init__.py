"""The words of the domain: frozen values and one error tree. No I/O."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from metalmark.model.digest import Digest, Hasher
from metalmark.model.errors import (
    BoxLost,
    BoxTooSmall,
    Canceled,
    Conflict,
    DigestMismatch,
    Forbidden,
    ImageError,
    ImageNotFound,
    InputError,
    LayerRefused,
    MetalmarkError,
    NoPermission,
    NoSpace,
    NotAnImage,
    NotFound,
    PhaseTimeout,
    ProcessRefused,
    ProtocolError,
    RegistryDenied,
    RegistryUnavailable,
    RequestRefused,
    SandboxUnavailable,
    ServerStopping,
    ServerUnavailable,
    StableError,
    StoreAway,
    StoreBusy,
    StoreFull,
    StoreUnavailable,
    TooLarge,
    ToolMissing,
    TooManyRequests,
    TransientError,
    Unauthenticated,
    UnsupportedImage,
    WrongPlatform,
)
from metalmark.model.job import JobSpec, Plan, RootfsMode, SandboxName, Step, plan
from metalmark.model.outcome import (
    EXIT_INFRASTRUCTURE,
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    EXIT_SIGNAL_BASE,
    EXIT_TIMED_OUT,
    Fault,
    Outcome,
    exit_code,
)
from metalmark.model.phase import Phase, PhaseSpan
from metalmark.model.platform import Platform
from metalmark.model.printable import encodable, printable
from metalmark.model.process import DEFAULT_PATH, ImageConfig, Process, ProcessOverrides, resolve_process
from metalmark.model.progress import Progress, ProgressSink, ignore_progress
from metalmark.model.quantity import GIB, KIB, MIB, format_bytes, format_seconds, parse_bytes, parse_seconds
from metalmark.model.resources import OutputLimits, Resources

if TYPE_CHECKING:
    from metalmark.model.result import (
        SCHEMA_VERSION,
        ErrorResult,
        FileResult,
        FilesResult,
        HostResult,
        ImageResult,
        IterationResult,
        LimitsResult,
        PhaseResult,
        RunResult,
        StreamResult,
    )


__all__ = [
    "DEFAULT_PATH",
    "EXIT_INFRASTRUCTURE",
    "EXIT_NOT_EXECUTABLE",
    "EXIT_NOT_FOUND",
    "EXIT_SIGNAL_BASE",
    "EXIT_TIMED_OUT",
    "GIB",
    "KIB",
    "MIB",
    "SCHEMA_VERSION",
    "BoxLost",
    "BoxTooSmall",
    "Canceled",
    "Conflict",
    "Digest",
    "DigestMismatch",
    "ErrorResult",
    "Fault",
    "FileResult",
    "FilesResult",
    "Forbidden",
    "Hasher",
    "HostResult",
    "ImageConfig",
    "ImageError",
    "ImageNotFound",
    "ImageResult",
    "InputError",
    "IterationResult",
    "JobSpec",
    "LayerRefused",
    "LimitsResult",
    "MetalmarkError",
    "NoPermission",
    "NoSpace",
    "NotAnImage",
    "NotFound",
    "Outcome",
    "OutputLimits",
    "Phase",
    "PhaseResult",
    "PhaseSpan",
    "PhaseTimeout",
    "Plan",
    "Platform",
    "Process",
    "ProcessOverrides",
    "ProcessRefused",
    "Progress",
    "ProgressSink",
    "ProtocolError",
    "RegistryDenied",
    "RegistryUnavailable",
    "RequestRefused",
    "Resources",
    "RootfsMode",
    "RunResult",
    "SandboxName",
    "SandboxUnavailable",
    "ServerStopping",
    "ServerUnavailable",
    "StableError",
    "Step",
    "StoreAway",
    "StoreBusy",
    "StoreFull",
    "StoreUnavailable",
    "StreamResult",
    "TooLarge",
    "TooManyRequests",
    "ToolMissing",
    "TransientError",
    "Unauthenticated",
    "UnsupportedImage",
    "WrongPlatform",
    "encodable",
    "exit_code",
    "format_bytes",
    "format_seconds",
    "ignore_progress",
    "parse_bytes",
    "parse_seconds",
    "plan",
    "printable",
    "resolve_process",
]

_RESULT = frozenset(
    (
        "SCHEMA_VERSION",
        "ImageResult",
        "HostResult",
        "LimitsResult",
        "PhaseResult",
        "StreamResult",
        "FileResult",
        "FilesResult",
        "ErrorResult",
        "IterationResult",
        "RunResult",
    )
)


def __getattr__(name: str) -> object:
    # Pydantic takes a noticeable time to import, and most commands need no result.
    if name in _RESULT:
        return getattr(importlib.import_module("metalmark.model.result"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
