"""The web application: all routes behind one set of rules."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Depends, FastAPI

import metalmark.server
from metalmark.server.config import ServerConfig
from metalmark.server.context import ServerContext
from metalmark.server.errors import install_error_handlers
from metalmark.server.metrics import Metrics
from metalmark.server.openapi import openapi_document, operation_name
from metalmark.server.query_values import single_values
from metalmark.server.request_body import RequestBody
from metalmark.server.request_frame import RequestFrame
from metalmark.server.request_path import RequestPath
from metalmark.system import Clock, SystemClock

_MOST_ASKED = "routes_registry_"


def _routers(*, first: str = "") -> Iterator[APIRouter]:
    """Yield the routers by the names of their modules; those whose names begin so are the first."""
    names = [module.name for module in pkgutil.iter_modules(metalmark.server.__path__)]
    for name in sorted(names, key=lambda name: (not name.startswith(first), name)):
        if name.startswith("routes_"):
            yield importlib.import_module(f"metalmark.server.{name}").router


def frame(routers: Iterable[APIRouter], config: ServerConfig, clock: Clock, metrics: Metrics) -> FastAPI:
    """Return an application of some routes with the rules of every request around them."""
    application = FastAPI(
        title="Metalmark",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
        generate_unique_id_function=operation_name,
    )
    install_error_handlers(application)
    # The last one added is the outermost.
    application.add_middleware(RequestBody, bounds=config.server)
    application.add_middleware(RequestPath)
    application.add_middleware(RequestFrame, server=config.server, clock=clock, metrics=metrics)
    included = list(routers)
    for router in included:
        application.include_router(router, dependencies=[Depends(single_values)])
    application.state.routes = [route for router in included for route in router.routes]
    application.openapi = functools.cache(lambda: openapi_document(application, included))  # type: ignore[method-assign]  # as the framework documents it
    return application


def make_application(context: ServerContext) -> FastAPI:
    """Return the application that serves a context; opening and closing the context is the caller's."""
    # Routes are tried one after the other, and each image is dozens of requests.
    application = frame(_routers(first=_MOST_ASKED), context.config, context.clock, context.metrics)
    application.state.context = context
    return application


def describe() -> dict[str, Any]:
    """Return the OpenAPI document of the interface, without a server."""
    document: dict[str, Any] = frame(_routers(), ServerConfig(), SystemClock(), Metrics()).openapi()
    return document
