"""A query parameter that is one value comes once."""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Union, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from metalmark.model import InputError

_MANY = (list, tuple, set, frozenset)


def _takes_many(annotation: object) -> bool:
    origin = get_origin(annotation)
    if origin in (Annotated, Union, types.UnionType):
        return any(_takes_many(argument) for argument in get_args(annotation))
    return annotation in _MANY or origin in _MANY


def _single_names(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.query_params:
        if not _takes_many(parameter.field_info.annotation):
            yield parameter.alias
    for inner in dependant.dependencies:
        yield from _single_names(inner)


async def single_values(connection: HTTPConnection) -> None:
    """Refuse a request that gives a parameter of one value twice: which of them is meant, nobody can tell.

    Raises:
        InputError: A parameter is there twice.
    """
    route = connection.scope.get("route")
    query: bytes = connection.scope.get("query_string", b"")
    if not query or not isinstance(route, APIRoute):
        return
    counted = Counter(name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    twice = {name for name, count in counted.items() if count > 1}
    for name in twice & set(_single_names(route.dependant)) if twice else ():
        raise InputError(f"query parameter {name}", f"given {counted[name]} times", "it takes one value")
