"""The web application: all routes behind one set of rules."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from fastapi import APIRouter, Depends, FastAPI

import metalmark.server
from metalmark.server.context import ServerContext
from metalmark.server.errors import install_error_handlers
from metalmark.server.query_values import single_values
from metalmark.server.request_body import RequestBody
from metalmark.server.request_frame import RequestFrame
from metalmark.server.request_path import RequestPath


def _routers() -> Iterator[APIRouter]:
    for module in pkgutil.iter_modules(metalmark.server.__path__, "metalmark.server."):
        if module.name.rpartition(".")[2].startswith("routes_"):
            yield importlib.import_module(module.name).router


def make_application(context: ServerContext) -> FastAPI:
    """Return the application that serves a context; opening and closing the context is the caller's."""
    application = FastAPI(
        title="Metalmark",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    application.state.context = context
    install_error_handlers(application)
    # The last one added is the outermost.
    application.add_middleware(RequestBody, bounds=context.config.server)
    application.add_middleware(RequestPath)
    application.add_middleware(RequestFrame, server=context.config.server, clock=context.clock, metrics=context.metrics)
    for router in _routers():
        application.include_router(router, dependencies=[Depends(single_values)])
    return application
