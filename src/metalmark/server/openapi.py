"""The description of the interface: what the framework knows of the routes, and what it does not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from metalmark.server.caller import current_actor, current_user
from metalmark.wire import PUBLIC_VERSION, ErrorBody

_DESCRIPTION = """Jobs for quiet machines, and their results.

Errors have one body, whatever their status. Lists are bare arrays with `x-total-count` beside them. `Authorization:
Bearer` takes a session's token, a user's key or a project's key."""
_TOTAL = {"description": "How many items there are, on whatever page.", "schema": {"type": "integer", "minimum": 0}}
_REQUEST_ID = {"description": "The request's id.", "schema": {"type": "string", "format": "uuid"}}
_ERROR_REFERENCE = {"$ref": "#/components/responses/Error"}


_PARAMETER = re.compile(r"[^/]+/\{([^}:]+)[^}]*\}")


def operation_name(route: APIRoute) -> str:
    """Return what a route is called by programs that are made from the document: `project_branches_get`."""
    path = _PARAMETER.sub(r"\1", route.path_format.removeprefix("/v0")).strip("/")
    words = re.sub(r"[^A-Za-z0-9]+", "_", path) or "root"
    return f"{words}_{min(route.methods or {'get'}).lower()}"


RUNNER_SECURITY: dict[str, Any] = {"security": [{"runner": []}]}
"""What a route that a runner's key opens adds to its operation."""


def _calls(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for inner in dependant.dependencies:
        yield from _calls(inner)


def _security(route: APIRoute) -> list[dict[str, list[str]]]:
    calls = set(_calls(route.dependant))
    if current_user in calls:
        return [{"bearer": []}]
    return [{}, {"bearer": []}] if current_actor in calls else []


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    responses: dict[str, Any] = operation["responses"]
    # The framework would answer what is not valid with this, and this server does not.
    responses.pop("422", None)
    for status, response in responses.items():
        if status.startswith("2"):
            response["headers"] = {**response.get("headers", {}), "x-total-count": _TOTAL, "x-request-id": _REQUEST_ID}
    responses["4XX"] = _ERROR_REFERENCE
    responses["5XX"] = _ERROR_REFERENCE
    # Routes that check a runner's key themselves say so.
    operation.setdefault("security", _security(route))


def openapi_document(application: FastAPI, routers: list[APIRouter]) -> dict[str, Any]:
    """Return the OpenAPI document of an application.

    Args:
        application: The application.
        routers: All that it serves; routes that are not REST (channels) are not described.
    """
    document: dict[str, Any] = get_openapi(
        title="Metalmark",
        version=PUBLIC_VERSION,
        description=_DESCRIPTION,
        routes=application.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                for method in route.methods or ():
                    _complete(document["paths"][route.path_format][method.lower()], route)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["ErrorBody"] = ErrorBody.model_json_schema()
    components["responses"] = {
        "Error": {
            "description": "What was found, and what to do.",
            "headers": {"x-request-id": _REQUEST_ID},
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
        }
    }
    components["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A session's token, a user's key, a project's key.",
        },
        "runner": {"type": "http", "scheme": "bearer", "description": "The key of the runner that the path names."},
        "basic": {"type": "http", "scheme": "basic", "description": "Any name, and a key as the password."},
    }
    return document


def as_text(document: dict[str, Any]) -> str:
    """Return a document as it is checked in: stable, and readable in a diff."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
