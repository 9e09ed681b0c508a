"""The configuration of a server: one model, whatever its values came from.

A key is a section and a name (``server.bind``); ``database`` and ``storage`` stand alone. ``config_sources`` reads them
from a file, the environment and flags.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field

from metalmark.model import MIB

Network = IPv4Network | IPv6Network
DAY_S = 86_400

_LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class SignUp(StrEnum):
    """Who may make an account."""

    CLOSED = "closed"
    """Nobody; the operator makes accounts."""
    INVITE = "invite"
    """Whoever holds an invitation of an organization."""
    OPEN = "open"
    """Anybody with an e-mail address."""


class SmtpSecurity(StrEnum):
    """How the connection to the mail server is encrypted."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class Section(BaseModel):
    """A group of keys. Unknown keys are errors: a typo must not leave a default in force."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSection(Section):
    """Where and how the server listens."""

    bind: str = Field("127.0.0.1:6610", description="Address and port to listen on; port 0 takes any that is free.")
    url: AnyHttpUrl | None = Field(
        None,
        description="The address that users and runners reach this server at; by default `http://localhost:PORT/`.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="Networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."
    )
    request_body_max_bytes: int = Field(4 * MIB, ge=1024, description="The largest body of a REST request.")
    message_max_bytes: int = Field(64 * MIB, ge=1024, description="The largest message of a runner's channel.")
    output_max_bytes: int = Field(1024 * MIB, ge=1024, description="The largest output of a job that is uploaded.")
    read_timeout_s: float = Field(30, gt=0, description="Seconds within which a request's body has to arrive.")
    write_timeout_s: float = Field(60, gt=0, description="Seconds that a client may take nothing of what it is sent.")
    stop_timeout_s: float = Field(20, gt=0, description="Seconds that requests under way are given when it stops.")


class TlsSection(Section):
    """Certificate and key; both or neither."""

    certificate_file: Path | None = Field(None, description="The certificate and its chain, PEM.")
    key_file: Path | None = Field(None, description="The private key, PEM, without a passphrase.")


class ConsoleSection(Section):
    """The web console."""

    url: AnyHttpUrl | None = Field(None, description="Where links in mails and comments lead; by default `server.url`.")


class AuthSection(Section):
    """Who may do what without being asked in."""

    anonymous: bool = Field(
        default=False, description="Whether projects and runs may be made without an account, on specs marked for it."
    )
    signup: SignUp = Field(SignUp.INVITE, description="Who may make an account.")
    issuer: str | None = Field(
        None,
        description="Issuer of the server's tokens, the same for all servers of a database; by default `console.url`.",
    )
    session_ttl_s: int = Field(30 * DAY_S, ge=60, description="How long a sign-in lasts.")
    confirmation_ttl_s: int = Field(1800, ge=60, description="How long a confirmation by e-mail can be used.")
    invitation_ttl_s: int = Field(7 * DAY_S, ge=60, description="How long an invitation can be accepted.")


class SmtpSection(Section):
    """The mail server; without `hostname`, mails are written to the log."""

    hostname: str | None = Field(None, description="Name of the mail server.")
    port: int = Field(587, ge=1, le=65535, description="Its port.")
    security: SmtpSecurity = Field(SmtpSecurity.STARTTLS, description="How the connection is encrypted.")
    username: str | None = Field(None, description="User name, when it asks for one.")
    password_file: Path | None = Field(None, description="A file that holds the password and nothing else.")
    from_name: str = Field("Metalmark", description="Name of the sender.")
    from_email: str | None = Field(None, description="Address of the sender; needed with `hostname`.")
    timeout_s: float = Field(15, gt=0, description="Seconds that sending a mail may take.")


class RegistrySection(Section):
    """The registry: where the images of jobs may come from, and how much it holds for how long."""

    url: AnyHttpUrl | None = Field(None, description="This server's registry, as runners reach it; else `server.url`.")
    allowed: tuple[str, ...] = Field((), description="Other registries, as `host` or `host:port` (`docker.io`).")
    layer_max_bytes: int = Field(32 * 1024 * MIB, ge=1, description="The largest layer, or other blob, of an image.")
    project_max_bytes: int | None = Field(
        None, ge=0, description="What the images of a project may take together; each blob of it counts once."
    )
    upload_timeout_s: float = Field(DAY_S, ge=1, description="Seconds after which an upload is over that lies still.")
    lease_s: float = Field(
        DAY_S, ge=1, description="Seconds that a blob is kept which no manifest names: its push is under way."
    )
    reading_s: float = Field(
        3600, ge=0, description="Seconds that deleted bytes are kept for those who are reading them."
    )
    collect_every_s: float = Field(3600, ge=1, description="Seconds between two collections of what nothing needs.")
    keep_tags: int | None = Field(
        None, ge=1, description="Tags of a repository that stay, the newest; older ones go, but for images of jobs."
    )
    keep_days: int | None = Field(
        None, ge=1, description="Days that tags stay; with `registry.keep_tags`, only those go that neither keeps."
    )
    sparse_indexes: bool = Field(
        default=False, description="Whether an index may name images that are not in its repository."
    )


class JobsSection(Section):
    """Time limits and concurrency of jobs."""

    max_pending_s: int = Field(7 * DAY_S, ge=1, description="How long a job may wait for a runner.")
    timeout_s: int = Field(3600, ge=1, le=2_147_483_647, description="Time limit of an iteration that names none.")
    allowance_s: int = Field(600, ge=0, description="Added to a job's limit for pulling its image and booting.")
    max_duration_s: int = Field(
        DAY_S, ge=1, description="The longest limit that a job may have: all iterations, their grace and the allowance."
    )
    heartbeat_timeout_s: Annotated[float, Field(ge=1, le=900)] = Field(
        90, description="Silence of a runner after which its job's lease ends."
    )
    grace_s: Annotated[float, Field(ge=1, le=900)] = Field(60, description="Added to the time limit of an iteration.")
    starvation_s: int = Field(3600, ge=1, description="Age at which a waiting job goes before younger, higher ones.")
    project_concurrency: int | None = Field(None, ge=1, description="Jobs of one project that run at once.")
    organization_concurrency: int | None = Field(None, ge=1, description="Jobs of one organization that run at once.")
    source_concurrency: int | None = Field(None, ge=1, description="Anonymous jobs of one address that run at once.")


class LimitsSection(Section):
    """Rate limits, each a number a minute; 0 switches one off."""

    address_requests: int = Field(1024, ge=0, description="Requests without a valid credential, of one address.")
    user_requests: int = Field(2048, ge=0, description="Requests of one user or key.")
    registry_requests: int = Field(60_000, ge=0, description="Requests of one user, key or runner to the registry.")
    sign_in_attempts: int = Field(32, ge=0, description="Sign-ups, sign-ins and bad credentials, of one address.")
    mails: int = Field(4, ge=0, description="Mails that one address of a recipient is sent.")
    runs: int = Field(256, ge=0, description="Runs that one user, key or address submits.")
    runner_connections: int = Field(60, ge=0, description="Channels that one runner opens.")


class MetricsSection(Section):
    """Who may read `/metrics`."""

    allowed: tuple[Network, ...] = Field(
        _LOOPBACK,
        description="Networks of the clients that may read `/metrics`; what a proxy passes on that"
        " `server.trusted_proxies` does not have is refused, unless a network here is that of all addresses.",
    )


class ServerConfig(Section):
    """All that an operator can set."""

    database: str | None = Field(
        None, description="`sqlite:///PATH` or `postgresql://…`; by default a file in Metalmark's state folder."
    )
    storage: str | None = Field(
        None, description="A folder or `s3://bucket/prefix` for large content; by default beside the database."
    )
    server: ServerSection = ServerSection()
    tls: TlsSection = TlsSection()
    console: ConsoleSection = ConsoleSection()
    auth: AuthSection = AuthSection()
    smtp: SmtpSection = SmtpSection()
    registry: RegistrySection = RegistrySection()
    jobs: JobsSection = JobsSection()
    limits: LimitsSection = LimitsSection()
    metrics: MetricsSection = MetricsSection()

    def settled(self, port: int) -> ServerConfig:
        """Return this configuration with the server's own address set, as it is once the port is known.

        Args:
            port: The port that the server listens on.
        """
        if self.server.url is not None:
            return self
        scheme = "https" if self.tls.certificate_file is not None else "http"
        url = AnyHttpUrl(f"{scheme}://localhost:{port}/")
        return self.model_copy(update={"server": self.server.model_copy(update={"url": url})})

    @property
    def url(self) -> str:
        """The server's own address, with a slash at its end."""
        assert self.server.url is not None, "the configuration is settled before it is used"
        return _with_slash(self.server.url)

    @property
    def console_url(self) -> str:
        """Where links lead, with a slash at its end."""
        return _with_slash(self.console.url) if self.console.url is not None else self.url

    @property
    def registry_url(self) -> str:
        """The address of the server's own registry, with a slash at its end."""
        return _with_slash(self.registry.url) if self.registry.url is not None else self.url

    @property
    def issuer(self) -> str:
        """Issuer of the server's tokens."""
        return self.auth.issuer or self.console_url


def _with_slash(url: AnyHttpUrl) -> str:
    return str(url).rstrip("/") + "/"
