"""The messages that host and guest exchange."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from metalmark.wire.fields import Fields, pack
from metalmark.wire.frames import HEADER_BYTES, MAX_PAYLOAD_BYTES, Frame, FrameDecoder, encode
from metalmark.wire.guest import (
    INPUT_WINDOW_BYTES,
    PROTOCOL,
    Clock,
    ClockTag,
    CreditTag,
    Done,
    DoneTag,
    Ending,
    Exec,
    ExecTag,
    Exited,
    ExitTag,
    Fault,
    FaultTag,
    Get,
    GetTag,
    Hello,
    HelloTag,
    Kind,
    Put,
    PutTag,
    Ready,
    ReadyTag,
    Setup,
    SetupTag,
    SignalTag,
    credit_of,
    signal_frame,
)

if TYPE_CHECKING:
    from metalmark.wire.scalars import (
        I32,
        U8,
        U32,
        BenchmarkIdField,
        BenchmarkNameField,
        Body,
        BranchIdField,
        BranchNameField,
        DateTimeField,
        EmailField,
        Flag,
        GitHashField,
        JwtField,
        NameIdField,
        PositiveI32,
        PositiveI64,
        ResourceIdField,
        ResourceNameField,
        SlugField,
        Text,
        UrlField,
        UserNameField,
        UuidField,
        format_date_time,
        parse_date_time,
    )

__all__ = [
    "HEADER_BYTES",
    "I32",
    "INPUT_WINDOW_BYTES",
    "MAX_PAYLOAD_BYTES",
    "PROTOCOL",
    "U8",
    "U32",
    "BenchmarkIdField",
    "BenchmarkNameField",
    "Body",
    "BranchIdField",
    "BranchNameField",
    "Clock",
    "ClockTag",
    "CreditTag",
    "DateTimeField",
    "Done",
    "DoneTag",
    "EmailField",
    "Ending",
    "Exec",
    "ExecTag",
    "ExitTag",
    "Exited",
    "Fault",
    "FaultTag",
    "Fields",
    "Flag",
    "Frame",
    "FrameDecoder",
    "Get",
    "GetTag",
    "GitHashField",
    "Hello",
    "HelloTag",
    "JwtField",
    "Kind",
    "NameIdField",
    "PositiveI32",
    "PositiveI64",
    "Put",
    "PutTag",
    "Ready",
    "ReadyTag",
    "ResourceIdField",
    "ResourceNameField",
    "Setup",
    "SetupTag",
    "SignalTag",
    "SlugField",
    "Text",
    "UrlField",
    "UserNameField",
    "UuidField",
    "credit_of",
    "encode",
    "format_date_time",
    "pack",
    "parse_date_time",
    "signal_frame",
]

# Pydantic takes a noticeable time to import, and the frames of host and guest need none of it.
_LATE = ("scalars",)


def __getattr__(name: str) -> object:
    if name in __all__:
        for noun in _LATE:
            module = importlib.import_module(f"metalmark.wire.{noun}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
