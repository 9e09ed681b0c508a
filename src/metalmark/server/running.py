"""One server process: its parts opened in order, the web server on its socket, and both ended in reverse."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import structlog
import uvicorn
from fastapi import FastAPI

from metalmark.model import ApiKey, JobStatus, StableError
from metalmark.server.application import make_application
from metalmark.server.channels import Channels
from metalmark.server.config import ServerConfig
from metalmark.server.config_rules import split_bind
from metalmark.server.connection import BoundedHttp
from metalmark.server.context import ServerContext, default_database, default_storage
from metalmark.server.deadlines import Deadlines
from metalmark.server.dispatcher import Dispatcher
from metalmark.server.first_start import ensure_admin
from metalmark.server.job_desk import JobDesk
from metalmark.server.job_rules import claim_rules, job_limits
from metalmark.server.mail import open_mailer
from metalmark.server.metrics import Metrics
from metalmark.server.orphan_sweep import OrphanSweep
from metalmark.server.output_sweep import OutputSweep
from metalmark.server.rate_limits import RateLimits
from metalmark.server.readiness import Readiness
from metalmark.server.reading_queue import ReadingQueue
from metalmark.server.registry_collection import RegistryCollector
from metalmark.server.registry_retention import RegistryRetention
from metalmark.server.signer import open_signer
from metalmark.server.socket_protocol import SocketProtocol
from metalmark.store import Blobs, ClaimedJob, JobRecord, Store
from metalmark.system import Clock, SystemClock

_CHANNELS_CLOSE_S = 2.0
_BACKLOG = 1024

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A server that listens."""

    context: ServerContext
    url: str
    """Where it can be reached from this machine, with a slash at its end."""
    first_key: ApiKey | None
    """The key of the administrator that this start has made; None on every later start."""


def listen(config: ServerConfig) -> socket.socket:
    """Return a socket that listens where the configuration says.

    Raises:
        StableError: The address is in use, not this machine's, or not for this user.
    """
    host, port = split_bind(config.server.bind)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise StableError(
            f"cannot listen on {config.server.bind}",
            why=error.strerror or str(error),
            hint="choose another with --bind",
        ) from error
    return listening


@asynccontextmanager
async def open_context(
    config: ServerConfig, folder: Path, *, clock: Clock | None = None
) -> AsyncIterator[ServerContext]:
    """Open all parts of a server, and close them at the end.

    Args:
        config: Its configuration, with its addresses settled (`ServerConfig.settled`).
        folder: Where the database and the storage are that the configuration does not place; it exists.
        clock: Where it reads the time.

    Raises:
        MetalmarkError: A part cannot be opened; those that were are closed.
    """
    clock = clock or SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            await Store.open(config.database or default_database(folder), alone=True)
        )
        blobs = Blobs.open(config.storage or default_storage(folder))
        # An operator is told now that the storage is wrong; later it would cost the first results.
        await blobs.check()
        stopping = anyio.Event()
        metrics = Metrics()

        def claimed(job: ClaimedJob) -> None:
            metrics.job_claimed((job.claimed - job.created).total_seconds())
            metrics.job_moved(JobStatus.CLAIMED)
            deadlines.expect_lease()

        async def read_results(job: JobRecord) -> JobRecord:
            return await JobDesk(context).process(job)

        dispatcher = Dispatcher(store, clock, claim_rules(config.jobs), claimed=claimed)
        deadlines = Deadlines(store, clock, job_limits(config.jobs), read_results=read_results, moved=metrics.job_moved)
        context = ServerContext(
            config=config,
            clock=clock,
            store=store,
            blobs=blobs,
            signer=await open_signer(store, issuer=config.issuer, clock=clock),
            mailer=open_mailer(config.smtp),
            dispatcher=dispatcher,
            channels=Channels(store=store, clock=clock, stopping=stopping),
            limits=RateLimits(config.limits, clock),
            metrics=metrics,
            readiness=Readiness(blobs, clock),
            readings=ReadingQueue(clock),
            stopping=stopping,
            folder=folder,
        )
        failure = None
        async with anyio.create_task_group() as tasks:
            await tasks.start(dispatcher.run)
            await tasks.start(deadlines.run)
            tasks.start_soon(context.readings.run, JobDesk(context).process_large)
            try:
                yield context
            except Exception as error:  # noqa: BLE001 - raised again below, as itself and not as a group of one
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure


class _WebServer(uvicorn.Server):
    """uvicorn without its own signal handling: the command knows what a signal means."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _web_server(application: FastAPI, config: ServerConfig) -> _WebServer:
    writing = {"write_timeout_s": config.server.write_timeout_s}
    http = type("Http", (BoundedHttp,), {"head_timeout_s": config.server.read_timeout_s, **writing})
    channel = type("Channel", (SocketProtocol,), writing)
    return _WebServer(
        uvicorn.Config(
            application,
            http=http,
            ws=channel,
            ws_max_size=config.server.message_max_bytes,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(config.server.stop_timeout_s)),
            ssl_certfile=config.tls.certificate_file,
            ssl_keyfile=config.tls.key_file,
        )
    )


async def serve(
    config: ServerConfig,
    folder: Path,
    *,
    stop: anyio.Event,
    ready: Callable[[Started], None],
    clock: Clock | None = None,
) -> None:
    """Run a server until it is told to stop.

    Args:
        config: Its configuration.
        folder: Its own folder; it exists.
        stop: Set by the caller when the server is to end. Runners are told to come back, requests under way are given
            `server.stop_timeout_s`, and what has been committed stays.
        ready: Called once it listens.
        clock: Where it reads the time.

    Raises:
        MetalmarkError: It cannot start, or a part of it has failed.
    """
    listening = listen(config)
    with listening:
        config = config.settled(listening.getsockname()[1])
        async with open_context(config, folder, clock=clock) as context:
            first_key = await ensure_admin(context.store, context.clock, folder)
            web = _web_server(make_application(context), config)

            async def end() -> None:
                await stop.wait()
                _log.info("stopping")
                context.stopping.set()
                await _channels_closed(context)
                web.should_exit = True

            async with anyio.create_task_group() as tasks:
                await tasks.start(context.channels.run)
                tasks.start_soon(OutputSweep(context).run)
                tasks.start_soon(OrphanSweep(context).run)
                tasks.start_soon(RegistryCollector(context).run)
                tasks.start_soon(RegistryRetention(context).run)
                tasks.start_soon(end)
                tasks.start_soon(_announce, web, Started(context=context, url=config.url, first_key=first_key), ready)
                await web.serve(sockets=[listening])
                tasks.cancel_scope.cancel()


async def _announce(web: _WebServer, started: Started, ready: Callable[[Started], None]) -> None:
    await web.listening.wait()
    ready(started)


async def _channels_closed(context: ServerContext) -> None:
    # Channels close themselves with a reason that runners know; whoever does not in time is cut with the rest.
    with anyio.move_on_after(_CHANNELS_CLOSE_S):
        await context.metrics.no_channels()
