"""Routes for those who watch the server: load balancers, supervisors, Prometheus."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from metalmark.model import Forbidden, ServerStopping
from metalmark.server.client_address import is_within, parse_address
from metalmark.server.context import CurrentContext, ServerContext
from metalmark.server.metrics import CONTENT_TYPE
from metalmark.store import count_jobs
from metalmark.wire import HealthBody

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> HealthBody:
    """Answer as long as the process serves at all; a supervisor restarts one that does not."""
    return HealthBody(status="ok")


@router.get("/readyz")
async def readyz(context: CurrentContext) -> HealthBody:
    """Answer 200 while new work is welcome: database and storage answer, and the process is not on its way out."""
    if context.stopping.is_set():
        raise ServerStopping("this server is stopping")
    async with context.store.read() as connection:
        await count_jobs(connection)
    await context.readiness.check()
    return HealthBody(status="ok")


def _watcher(request: Request, context: CurrentContext) -> ServerContext:
    allowed, state = context.config.metrics.allowed, request.scope["state"]
    if any(not network.prefixlen for network in allowed):
        return context
    if state["passed_on"]:
        # Behind a proxy on this machine everybody would come from here.
        raise Forbidden(
            "metrics are not for proxies that nobody trusts", hint="name the proxy in `server.trusted_proxies`"
        )
    if is_within(parse_address(state["client_address"]), allowed):
        return context
    raise Forbidden("metrics are for `metrics.allowed` only", hint="add the network of whoever reads them")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(context: Annotated[ServerContext, Depends(_watcher)]) -> Response:
    """Tell all metrics in Prometheus' text format."""
    async with context.store.read() as connection:
        jobs = await count_jobs(connection)
    text = context.metrics.exposition({status.value: count for status, count in jobs.items()})
    return Response(text, headers={"content-type": CONTENT_TYPE})
