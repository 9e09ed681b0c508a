"""Bodies about the server itself: version, configuration, statistics, backup, errors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from metalmark.wire.scalars import Body, DateTimeField, Flag, UuidField

PUBLIC_VERSION = "0.6.12"
"""The version whose interface this is, and what the public programs compare theirs with."""


class ErrorBody(Body):
    """The body of every answer that is an error."""

    request_id: str = Field(description="The answer's `x-request-id`; the server's log has it on each line.")
    message: str = Field(description="What was found and what to do, for people.")
    error_code: str | None = Field(default=None, description="`Internal` where the server itself has failed.")


class ServerVersionBody(Body):
    """Which interface this is, and which program serves it."""

    version: str = Field(description="Version of the interface.")
    metalmark: str = Field(description="Version of Metalmark.")


class ConsoleBody(Body):
    """Where the console is."""

    url: str


class TlsBody(Body):
    """Files of a certificate and its key."""

    type: Literal["as_file"] = "as_file"
    cert_file: str
    key_file: str


class ListenerBody(Body):
    """Where and how the server listens."""

    bind_address: str
    request_body_max_bytes: int
    tls: TlsBody | None = None


class SecurityBody(Body):
    """What signs the server's tokens."""

    issuer: str | None = None
    secret_key: str = Field(description="Never shown: always asterisks.")


class DatabaseBody(Body):
    """Where the database is, without a password."""

    file: str


class LogLevelBody(Body):
    """From which level on there is a log line."""

    level: Literal["trace", "debug", "info", "warn", "error", "critical"] = "info"


class LogBody(Body):
    """Where log lines go."""

    stderr_terminal: LogLevelBody


class LoggingBody(Body):
    """The log."""

    name: str
    log: LogBody


class ConfigBody(Body):
    """The configuration that is in force, without its secrets."""

    console: ConsoleBody
    security: SecurityBody
    server: ListenerBody
    logging: LoggingBody
    database: DatabaseBody
    metalmark: dict[str, object] = Field(description="Every key, by section, as the configuration file has it.")


class CohortBody(Body):
    """How many of a kind were made in the last week, in the last month of 30 days, and ever."""

    week: int
    month: int
    total: int


class ServerBody(Body):
    """The server's identity."""

    uuid: UuidField
    created: DateTimeField
    version: str | None = None


class JobCountsBody(Body):
    """How many jobs there are that have not ended."""

    pending: int
    claimed: int
    running: int


class StatsBody(Body):
    """What the server holds."""

    server: ServerBody
    timestamp: DateTimeField
    users: CohortBody
    projects: CohortBody
    reports: CohortBody
    jobs: JobCountsBody
    runners: int = Field(description="Runners that are not archived.")


class BackupRequest(Body):
    """What a copy of the database is to be."""

    compress: Flag | None = Field(default=None, description="Compress it with gzip.")
    data_store: Literal["aws_s3"] | None = Field(
        default=None, description="Put it into the object store that the server keeps large content in, too."
    )
    remove: Flag | None = Field(
        default=None, description="Remove the copy in the server's folder once it is in the object store."
    )


class BackupBody(Body):
    """A copy that was made."""

    created: DateTimeField


class HealthBody(Body):
    """Whether the server can do its work."""

    status: Literal["ok", "stopping", "unavailable"]
