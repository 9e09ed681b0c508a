"""Whether an answer has the shape that the reference of the interface promises."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from metalmark.model import ProtocolError

if TYPE_CHECKING:
    from metalmark.client.answer import JsonValue

MANY = "[]"
"""Stands behind the name of a body for a list of such."""


def check_shape(value: JsonValue, shape: str) -> None:
    """Check an answer.

    Args:
        value: The answer.
        shape: Name of a body in `metalmark.wire`, with `MANY` behind it for a list.

    Raises:
        ProtocolError: It has not that shape: a field is missing or has another type.
    """
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - heavy, and rarely asked for

    from metalmark import wire  # noqa: PLC0415 - heavy, and rarely asked for

    adapter: TypeAdapter[object] = TypeAdapter(getattr(wire, shape.removesuffix(MANY)))
    many = shape.endswith(MANY)
    if many and not isinstance(value, list):
        raise _broken("the answer", "it is no list")
    try:
        for one in value if many and isinstance(value, list) else (value,):
            adapter.validate_json(json.dumps(one))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the answer"
        raise _broken(place, first["msg"]) from None


def _broken(place: str, why: str) -> ProtocolError:
    return ProtocolError(
        f"the server's answer is not what the reference promises: {place}: {why}",
        why="--strict asks for exactly that",
        hint="the server may have another version: metalmark server version",
    )
