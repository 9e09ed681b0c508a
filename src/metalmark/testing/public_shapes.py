"""The answers that the public CLI decodes, field by field, as strictly as it decodes them.

Unknown fields are ignored, a missing required field or a value of another type is an error, and an optional field may
be absent or null. A server whose answers fit these shapes can be read by that program; what the values mean is tested
elsewhere.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, RootModel

__all__ = [
    "PUBLIC_VERSION",
    "Allowed",
    "ApiVersion",
    "AuthAck",
    "AuthUser",
    "Backup",
    "Branch",
    "Branches",
    "Console",
    "ErrorBody",
    "Job",
    "Jobs",
    "KeyOfProject",
    "KeyOfUser",
    "KeysOfProject",
    "KeysOfUser",
    "Member",
    "Members",
    "NewKeyOfProject",
    "NewKeyOfUser",
    "Organization",
    "Organizations",
    "Project",
    "Projects",
    "Report",
    "Reports",
    "Runner",
    "RunnerKey",
    "Runners",
    "Shape",
    "Spec",
    "Specs",
    "Testbed",
    "Testbeds",
    "Token",
    "Tokens",
    "User",
    "Users",
]

PUBLIC_VERSION = "0.6.12"
"""The version of the public CLI and runner that these shapes belong to."""

Uuid: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
Instant: TypeAlias = Annotated[
    str,
    Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$"),
]
Slug: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
Name: TypeAlias = Annotated[str, Field(pattern=r"^\S(.*\S)?$", max_length=64)]
UserName: TypeAlias = Annotated[str, Field(pattern=r"^[0-9A-Za-z ,.\-']{1,64}$")]
BranchName: TypeAlias = Annotated[str, Field(pattern=r"^[^\s~^:?*\[\\]+$", max_length=256)]
Email: TypeAlias = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
Jwt: TypeAlias = Annotated[str, Field(pattern=r"^[\w-]+\.[\w-]+\.[\w-]+$")]
Url: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://[^\s]+$")]
GitHash: TypeAlias = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{40}$")]
Digest: TypeAlias = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$")]
U32: TypeAlias = Annotated[int, Field(ge=0, le=2**32 - 1)]
I32: TypeAlias = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
I31: TypeAlias = Annotated[int, Field(ge=1, le=2**31 - 1)]
I63: TypeAlias = Annotated[int, Field(ge=1, le=2**63 - 1)]


class Shape(BaseModel):
    """A JSON object as the public CLI decodes it: strict types, unknown fields ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class ErrorBody(Shape):
    """The body of every answer of 400 and above; without it the CLI reports a decoding error instead of the fault."""

    request_id: str
    message: str
    error_code: str | None = None


class ApiVersion(Shape):
    """What the CLI asks before every other request."""

    version: str


class Console(Shape):
    """Where links to the web console point."""

    url: Url


class Allowed(Shape):
    """Whether the caller has a permission."""

    allowed: bool


class Backup(Shape):
    """When a backup was made."""

    created: Instant


class PublicUser(Shape):
    """The part of a user that anyone may see."""

    uuid: Uuid
    name: UserName
    slug: Slug


class User(PublicUser):
    """A user, as an administrator or the user sees it."""

    email: Email
    admin: bool
    locked: bool
    created: Instant | None = None


class AuthAck(Shape):
    """Where the confirmation was sent."""

    email: Email


class AuthUser(Shape):
    """A session: its user and the token."""

    user: User
    token: Jwt
    creation: Instant
    expiration: Instant


class KeyOfUser(Shape):
    """A user key, without its secret."""

    uuid: Uuid
    user: Uuid
    name: Name
    creation: Instant
    expiration: Instant
    revoked: Instant | None = None


class NewKeyOfUser(KeyOfUser):
    """A user key as its creation shows it, once."""

    key: Annotated[str, Field(pattern=r"^bencher_user_[0-9A-Za-z]{30}$")]


class KeyOfProject(Shape):
    """A project key, without its secret."""

    uuid: Uuid
    project: Uuid
    creator: Uuid | None = None
    name: Name
    creation: Instant
    expiration: Instant
    revoked: Instant | None = None


class NewKeyOfProject(KeyOfProject):
    """A project key as its creation shows it, once."""

    key: Annotated[str, Field(pattern=r"^bencher_run_[0-9A-Za-z]{30}$")]


class Token(Shape):
    """An API token of the retired kind."""

    uuid: Uuid
    user: Uuid
    name: Name
    token: Jwt
    creation: Instant
    expiration: Instant
    revoked: Instant | None = None


class Organization(Shape):
    """An organization."""

    uuid: Uuid
    name: Name
    slug: Slug
    license: Jwt | None = None
    created: Instant
    modified: Instant
    claimed: Instant | None = None


class Member(Shape):
    """A member of an organization. The CLI knows one role."""

    uuid: Uuid
    name: UserName
    slug: Slug
    email: Email
    role: Literal["leader"]
    created: Instant
    modified: Instant


class Project(Shape):
    """A project."""

    uuid: Uuid
    organization: Uuid
    name: Name
    slug: Slug
    url: Url | None = None
    visibility: Literal["public", "private"]
    created: Instant
    modified: Instant
    claimed: Instant | None = None


class Spec(Shape):
    """The hardware that a job asks for. The CLI knows one sandbox."""

    uuid: Uuid
    name: Name
    slug: Slug
    os: Literal["linux", "macos", "windows"]
    architecture: Literal["x86_64", "aarch64"]
    sandbox: Literal["firecracker"] | None = None
    cpu: I31
    memory: I63
    disk: I63
    network: bool
    fallback: Instant | None = None
    created: Instant
    modified: Instant
    archived: Instant | None = None


class Runner(Shape):
    """A runner."""

    uuid: Uuid
    name: Name
    slug: Slug
    specs: list[Uuid]
    archived: Instant | None = None
    last_heartbeat: Instant | None = None
    created: Instant
    modified: Instant


class RunnerKey(Shape):
    """A runner's secret, shown at creation and rotation."""

    uuid: Uuid
    key: Annotated[str, Field(pattern=r"^bencher_runner_[0-9A-Za-z]{30}$")]


class Version(Shape):
    """A version of a branch's head."""

    number: U32
    hash: GitHash | None = None


class StartPoint(Shape):
    """Where a head begins."""

    branch: Uuid
    head: Uuid
    version: Version


class Head(Shape):
    """A head of a branch."""

    uuid: Uuid
    start_point: StartPoint | None = None
    version: Version | None = None
    created: Instant
    replaced: Instant | None = None


class Branch(Shape):
    """A branch with the head that is shown."""

    uuid: Uuid
    project: Uuid
    name: BranchName
    slug: Slug
    head: Head
    created: Instant
    modified: Instant
    archived: Instant | None = None


class Testbed(Shape):
    """A testbed with the spec that is shown."""

    __test__ = False  # pytest would take the name for a test class

    uuid: Uuid
    project: Uuid
    name: Name
    slug: Slug
    spec: Spec | None = None
    created: Instant
    modified: Instant
    archived: Instant | None = None


class IterationCounts(Shape):
    """What an iteration measured, counted."""

    benchmarks: U32
    measures: U32


class AlertCounts(Shape):
    """Alerts, counted."""

    total: U32
    active: U32


class Counts(Shape):
    """A report, counted."""

    results: list[IterationCounts]
    alerts: AlertCounts


class Report(Shape):
    """A report. Results and alerts are decoded when there are measurements to decode."""

    uuid: Uuid
    user: PublicUser | None = None
    project: Project
    branch: Branch
    testbed: Testbed
    start_time: Instant
    end_time: Instant
    created: Instant
    adapter: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    results: list[list[dict[str, object]]] | None = None
    alerts: list[dict[str, object]] | None = None
    counts: Counts
    job: Uuid | None = None


class IterationOutput(Shape):
    """What one iteration printed."""

    exit_code: I32
    stdout: str | None = None
    stderr: str | None = None
    output: dict[str, str] | None = None


class JobOutput(Shape):
    """What a job printed, and why it failed."""

    results: list[IterationOutput]
    error: str | None = None


class JobConfig(Shape):
    """What a runner is told to run."""

    registry: Url
    project: Uuid
    digest: Digest
    timeout: I31
    image: str | None = None
    entrypoint: Annotated[list[str], Field(max_length=64)] | None = None
    cmd: Annotated[list[str], Field(max_length=64)] | None = None
    env: Annotated[dict[str, str], Field(max_length=255)] | None = None
    file_paths: Annotated[list[str], Field(max_length=255)] | None = None
    build_time: bool | None = None
    file_size: bool | None = None
    allow_failure: bool | None = None
    iter: U32 | None = None
    average: Literal["mean", "median"] | None = None
    fold: Literal["min", "max", "mean", "median"] | None = None
    backdate: Instant | None = None


class Job(Shape):
    """A job."""

    uuid: Uuid
    status: Literal["pending", "claimed", "running", "completed", "processed", "failed", "canceled"]
    spec: Spec
    config: JobConfig | None = None
    runner: Uuid | None = None
    claimed: Instant | None = None
    started: Instant | None = None
    completed: Instant | None = None
    created: Instant
    modified: Instant
    output: JobOutput | None = None


Branches = RootModel[list[Branch]]
Jobs = RootModel[list[Job]]
KeysOfProject = RootModel[list[KeyOfProject]]
KeysOfUser = RootModel[list[KeyOfUser]]
Members = RootModel[list[Member]]
Organizations = RootModel[list[Organization]]
Projects = RootModel[list[Project]]
Reports = RootModel[list[Report]]
Runners = RootModel[list[Runner]]
Specs = RootModel[list[Spec]]
Testbeds = RootModel[list[Testbed]]
Tokens = RootModel[list[Token]]
Users = RootModel[list[User]]
