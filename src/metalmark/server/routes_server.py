"""Routes about the server itself."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

import metalmark
from metalmark.server.audit import act_of
from metalmark.server.backups import make_backup
from metalmark.server.caller import ServerAdmin
from metalmark.server.context import CurrentContext, ServerContext
from metalmark.server.passwords import HIDDEN, without_password
from metalmark.store import count_jobs, read_statistics, record_act
from metalmark.wire import (
    PUBLIC_VERSION,
    BackupBody,
    BackupRequest,
    CohortBody,
    ConfigBody,
    ConsoleBody,
    DatabaseBody,
    JobCountsBody,
    ListenerBody,
    LogBody,
    LoggingBody,
    LogLevelBody,
    SecurityBody,
    ServerBody,
    ServerVersionBody,
    StatsBody,
    TlsBody,
)

router = APIRouter(tags=["server"])


@router.get("/")
async def root() -> None:
    """Answer that there is a server."""


@router.get("/v0/server/version")
async def version() -> ServerVersionBody:
    """Tell the version of the interface, and that of the program."""
    return ServerVersionBody(version=PUBLIC_VERSION, metalmark=metalmark.__version__)


@router.get("/v0/server/spec")
async def spec(request: Request) -> dict[str, Any]:
    """Describe the interface, as an OpenAPI document."""
    return request.app.openapi()  # type: ignore[no-any-return]  # Starlette's request knows no application by type


@router.get("/v0/server/config/console")
async def console(context: CurrentContext) -> ConsoleBody:
    """Tell where the console is."""
    return ConsoleBody(url=context.config.console_url)


@router.get("/v0/server/config")
async def config(context: CurrentContext, _: ServerAdmin) -> ConfigBody:
    """Show the configuration that is in force, without its secrets."""
    return config_body(context)


def config_body(context: ServerContext) -> ConfigBody:
    """Return a configuration as an administrator sees it."""
    config = context.config
    database = without_password(context.database)
    tls = config.tls
    every = config.model_dump(mode="json")
    every["database"] = database
    every["storage"] = without_password(config.storage) if config.storage else f"{context.folder}/blobs"
    return ConfigBody(
        console=ConsoleBody(url=config.console_url),
        security=SecurityBody(issuer=config.issuer, secret_key=HIDDEN),
        server=ListenerBody(
            bind_address=config.server.bind,
            request_body_max_bytes=config.server.request_body_max_bytes,
            tls=TlsBody(cert_file=str(tls.certificate_file), key_file=str(tls.key_file))
            if tls.certificate_file
            else None,
        ),
        logging=LoggingBody(name="Metalmark", log=LogBody(stderr_terminal=LogLevelBody())),
        database=DatabaseBody(file=database),
        metalmark=every,
    )


@router.get("/v0/server/stats")
async def stats(context: CurrentContext, _: ServerAdmin) -> StatsBody:
    """Count what the server holds."""
    now = context.clock.now()
    async with context.store.read() as connection:
        found = await read_statistics(connection, now=now)
        jobs = await count_jobs(connection)
    return StatsBody(
        server=ServerBody(uuid=found.server_id, created=found.server_created, version=metalmark.__version__),
        timestamp=now,
        users=CohortBody.model_validate(found.users, from_attributes=True),
        projects=CohortBody.model_validate(found.projects, from_attributes=True),
        reports=CohortBody.model_validate(found.reports, from_attributes=True),
        jobs=JobCountsBody(**{status.value: count for status, count in jobs.items()}),
        runners=found.runners,
    )


@router.post("/v0/server/backup", status_code=201)
async def backup(request: Request, context: CurrentContext, admin: ServerAdmin, body: BackupRequest) -> BackupBody:
    """Copy the database while it is used, into the server's folder and, if asked, an object store."""
    act = act_of(request, admin, "server.backup", "server", None, upload=body.data_store is not None)
    await context.store.write(lambda connection: record_act(connection, act, now=context.clock.now()))
    created = await make_backup(
        context, compress=bool(body.compress), upload=body.data_store is not None, remove=bool(body.remove)
    )
    return BackupBody(created=created)
