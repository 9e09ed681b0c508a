"""``/v0/runners/{runner}/channel``: the WebSocket through which runners take jobs and report on them."""

from __future__ import annotations

import structlog
from fastapi import APIRouter, Response, WebSocket

from metalmark import __version__
from metalmark.model import InputError, MetalmarkError, ServerStopping
from metalmark.server.channel_own import OwnSession
from metalmark.server.channel_public import PublicSession
from metalmark.server.channel_wire import INTERNAL_ERROR, TRY_AGAIN, ChannelWire
from metalmark.server.context import CurrentContext
from metalmark.server.openapi import RUNNER_SECURITY
from metalmark.server.rate_limits import Limited
from metalmark.server.runner_credential import runner_of
from metalmark.wire import SUBPROTOCOL, ResourceIdField

router = APIRouter()
_log = structlog.get_logger(__name__)


@router.get(
    "/v0/runners/{runner}/channel",
    status_code=101,
    response_class=Response,
    operation_id="runner_channel_get",
    openapi_extra=RUNNER_SECURITY,
    responses={101: {"description": "Switching Protocols"}},
)
async def channel_without_upgrade(runner: ResourceIdField) -> Response:
    """Open the channel of a runner: a WebSocket, with the runner's key as the credential.

    A request that asks for no upgrade is refused.
    """
    raise InputError("Upgrade", "", f"the channel of {runner} is a WebSocket")


@router.websocket("/v0/runners/{runner}/channel")
async def channel(socket: WebSocket, runner: ResourceIdField, context: CurrentContext) -> None:
    """Serve the channel of a runner.

    Without a sub-protocol it speaks the public messages, with ``metalmark.1`` our own. Whoever does not get in is told
    by a status before the upgrade: 400 for no handshake or no identifier, 401 for a bad key, 429 for too many
    connections, 503 while the server stops or its store is away.
    """
    if context.stopping.is_set():
        raise ServerStopping("this server is stopping", hint="connect again in a second")
    record = await runner_of(context, socket, runner)
    context.limits.spend(Limited.RUNNER_CONNECTIONS, f"runner {record.id}")
    ours = SUBPROTOCOL in socket.scope.get("subprotocols", ())
    await socket.accept(SUBPROTOCOL if ours else None)
    wire = ChannelWire(socket)
    session = OwnSession(context, record, wire, __version__) if ours else PublicSession(context, record, wire)
    context.metrics.channel_opened()
    log = _log.bind(runner=str(record.id), protocol=SUBPROTOCOL if ours else "public")
    log.info("channel opened")
    try:
        with context.channels.opened(session, key_digest=record.key_digest):
            await session.run()
    except MetalmarkError as error:
        log.warning("channel ended", error=str(error))
        await wire.close(TRY_AGAIN, error.found)
    except Exception:
        log.exception("channel failed")
        await wire.close(INTERNAL_ERROR, "the server failed; its log has the reason")
    finally:
        context.metrics.channel_closed()
        log.info("channel closed")
