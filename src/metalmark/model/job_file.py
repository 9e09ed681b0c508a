"""Job files: what is to be run, how often, on what, and what becomes of its results, as TOML.

One description serves a server's runners (``metalmark run FILE.toml``) and this machine (``metalmark runner run
FILE.toml``). ``docs/reference/job-file.md`` has a line for every field, made from the descriptions below.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from metalmark.model.errors import InputError
from metalmark.model.job import RootfsMode, SandboxName
from metalmark.model.job_fields import JobEnvironment, JobImage, JobPaths, JobPriority, JobWords, UnicodeText
from metalmark.model.names import BranchName, GitHash, ResourceName, parse_name_id, parse_resource_id
from metalmark.model.quantity import MIB, parse_bytes, parse_seconds

JOB_FILE_MAX_BYTES = 1024 * 1024
MAX_JOB_ITERATIONS = 100_000
_TIMEOUT_MAX_S = 2**31 - 1
_LOCAL_IMAGE = re.compile(r"((?:oci|oci-archive|docker-archive):)?(\.{1,2}/.*|\.{1,2})", re.DOTALL)
_SHOWN = 256
_WORDS = {
    "missing": "it is missing",
    "tuple_type": "a list of texts is needed",
    "dict_type": "a table is needed",
    "model_type": "a table is needed",
    "string_type": "a text is needed",
    "bool_type": "true or false is needed",
    "int_type": "a whole number is needed",
    "float_type": "a number is needed",
    "timezone_aware": "it has no offset from UTC",
}
"""What is said instead of the validation library's words."""


def _checked(check: Callable[[str], object]) -> AfterValidator:
    def checked(text: str) -> str:
        try:
            check(text)
        except InputError as error:
            raise ValueError(error.why + (f"; {error.hint}" if error.hint else "")) from None
        return text

    return AfterValidator(checked)


def _amount(value: object) -> object:
    # TOML has numbers, and flags have not: both become the text that flags take. A bool is a number to Python only.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _seconds(value: object) -> object:
    text = _amount(value)
    if not isinstance(text, str):
        return value
    try:
        return parse_seconds(text, field="timeout")
    except InputError as error:
        raise ValueError(error.why + (f"; {error.hint}" if error.hint else "")) from None


Timeout = Annotated[float, BeforeValidator(_seconds), Field(strict=True, gt=0, le=_TIMEOUT_MAX_S)]
Size = Annotated[str, BeforeValidator(_amount), _checked(lambda text: parse_bytes(text, field="", bare_unit=MIB))]
Whole = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
ResourceIdText = Annotated[UnicodeText, _checked(parse_resource_id)]
NameIdText = Annotated[UnicodeText, _checked(lambda text: parse_name_id(text, ResourceName))]
BranchIdText = Annotated[UnicodeText, _checked(lambda text: parse_name_id(text, BranchName))]
HashText = Annotated[UnicodeText, _checked(GitHash.parse)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StartPointSection(_Section):
    """Where the branch begins, if that differs from where it began."""

    branch: BranchIdText | None = Field(None, description="Another branch: UUID, slug or name.")
    hash: HashText | None = Field(None, description="At this commit of it; without it at its latest version.")
    max_versions: Annotated[Whole, Field(ge=0, le=2**32 - 1)] | None = Field(
        None, description="Versions that are taken over; 255 without it."
    )
    clone_thresholds: Flag | None = Field(None, description="Take over its thresholds too.")
    reset: Flag | None = Field(None, description="Begin a new head in any case.")


class ResultsSection(_Section):
    """How results are read."""

    adapter: UnicodeText | None = Field(None, description="Their format; `magic`, which guesses, without it.")
    average: Literal["mean", "median"] | None = Field(None, description="What stands for a sample.")
    fold: Literal["min", "max", "mean", "median"] | None = Field(None, description="Make one result of all iterations.")


class ThresholdSection(_Section):
    """A statistical test of one measure, with its bounds."""

    test: Literal["static", "percentage", "z_score", "t_test", "log_normal", "iqr", "delta_iqr"] = Field(
        description="The test."
    )
    min_sample_size: Annotated[Whole, Field(ge=1, le=2**32 - 1)] | None = Field(None, description="Fewest samples.")
    max_sample_size: Annotated[Whole, Field(ge=1, le=2**32 - 1)] | None = Field(None, description="Most samples.")
    window: Annotated[Whole, Field(ge=1, le=2**32 - 1)] | None = Field(None, description="Oldest sample, in seconds.")
    lower_boundary: Annotated[float, Field(allow_inf_nan=False)] | None = Field(None, description="Lower bound.")
    upper_boundary: Annotated[float, Field(allow_inf_nan=False)] | None = Field(None, description="Upper bound.")


class ThresholdsSection(_Section):
    """The thresholds of the run's branch and testbed."""

    models: dict[NameIdText, ThresholdSection] = Field(
        {}, description="A table each, by the measure's UUID, slug or name."
    )
    reset: Flag | None = Field(None, description="Drop the thresholds that are not given here.")


class MachineSection(_Section):
    """What the job gets of a machine, where no spec of a server says it: for `metalmark runner run`."""

    sandbox: SandboxName | None = Field(None, description="The sandbox; without it the best that works.")
    vcpus: Annotated[Whole, Field(ge=1, le=255)] | None = Field(None, description="Virtual CPUs; 1 without it.")
    memory: Size | None = Field(None, description="`512`, `1G`; a bare number counts MiB; 512 without it.")
    disk: Size | None = Field(None, description="Likewise; 1024 without it.")
    network: Flag = Field(default=False, description="Whether there is a network.")
    cpus: UnicodeText | None = Field(None, description="CPUs to bind to, like `2-3,6`.")
    rootfs: RootfsMode | None = Field(None, description="`overlay` without it.")
    platform: UnicodeText | None = Field(None, description="`os/architecture`; without it this machine's.")


class JobFile(_Section):
    """A job as its author describes it. What is None or empty is for the image, the spec or the server to say."""

    image: JobImage | None = Field(
        None, description="What is run. A path that begins with `./` or `../` starts at the job file."
    )
    command: JobWords | None = Field(None, description="Replaces the image's CMD.")
    entrypoint: JobWords | None = Field(None, description="Replaces the image's ENTRYPOINT, and drops its CMD.")
    env: JobEnvironment = Field({}, description="Variables, beside the image's own.")
    user: UnicodeText | None = Field(None, description="User of the image to run as. Not on a server.")
    workdir: UnicodeText | None = Field(None, description="Working directory in the image. Not on a server.")
    iterations: Annotated[Whole, Field(ge=0, le=MAX_JOB_ITERATIONS)] | None = Field(
        None, description="How often; 1 without it, 0 runs nothing."
    )
    timeout: Timeout | None = Field(None, description="Limit of one iteration: seconds, or `90s`, `5m`, `1h`.")
    allow_failure: Flag | None = Field(None, description="Go on after a failed iteration.")
    outputs: JobPaths | None = Field(None, description="Files and globs that are collected after each iteration.")
    build_time: Flag | None = Field(None, description="Measure how long the command takes. On a server.")
    file_size: Flag | None = Field(None, description="Measure the size of `outputs`. On a server.")
    spec: ResourceIdText | None = Field(None, description="Spec of the machine: slug or UUID. On a server.")
    priority: JobPriority | None = Field(None, description="Higher goes first; 100 without it. On a server.")
    retry: Flag | None = Field(
        None,
        description="Whether it may go back into the queue after a fault not its own, once. On a server.",
    )
    project: ResourceIdText | None = Field(None, description="Whose results they are: slug or UUID. On a server.")
    branch: BranchIdText | None = Field(None, description="Line of development; git's without it. On a server.")
    hash: HashText | None = Field(None, description="The commit; git's without it. On a server.")
    testbed: NameIdText | None = Field(None, description="Where it is measured; the spec's without it. On a server.")
    backdate: AwareDatetime | None = Field(None, description="Instant that the report begins at. On a server.")
    start_point: StartPointSection | None = Field(None, description="Where the branch begins. On a server.")
    results: ResultsSection = Field(ResultsSection(), description="How results are read. On a server.")
    thresholds: ThresholdsSection = Field(ThresholdsSection(), description="When a result is an alert. On a server.")
    machine: MachineSection = Field(MachineSection(), description="What it gets, where no spec says it.")


def parse_job_file(content: bytes, *, name: str) -> dict[str, object]:
    """Read the text of a job file and check every field of it.

    Args:
        content: The file.
        name: Its name, for errors.

    Returns:
        The fields it has, for `job_of_fields`, which may be given others instead of some.

    Raises:
        InputError: It is not TOML, or a field cannot be used; names the field and its value.
    """
    if len(content) > JOB_FILE_MAX_BYTES:
        raise InputError("FILE", name, f"a job file has {JOB_FILE_MAX_BYTES} bytes at most")
    try:
        fields = tomllib.loads(content.decode("utf-8"))
    # Deep nesting ends the parser with a RecursionError.
    except (ValueError, RecursionError) as error:
        raise InputError("FILE", name, f"it is not TOML: {error}") from None
    job_of_fields(fields, named=lambda field: f"{name}: {field}")
    return fields


def job_of_fields(fields: Mapping[str, object], *, named: Callable[[str], str]) -> JobFile:
    """Return the job that fields describe.

    Args:
        fields: Values by the names in `JobFile`.
        named: Returns what the author calls a field, as ``machine.memory``: a flag, or a line in a file.

    Raises:
        InputError: A field cannot be used; names the first such field and its value.
    """
    try:
        return JobFile.model_validate(fields)
    except ValidationError as errors:
        first = errors.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"] if not _is_marker(part))
    if first["type"] == "extra_forbidden":
        raise InputError(
            named(place), _shown(place, first["input"]), "there is no such field", hint=_known(first["loc"])
        )
    said = _WORDS.get(first["type"]) or first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    raise InputError(named(place), None if first["type"] == "missing" else _shown(place, first["input"]), said)


def image_beside(image: str, folder: str) -> str:
    """Return the image of a job file in a folder, with a path that starts at the file made one that starts anywhere."""
    found = _LOCAL_IMAGE.fullmatch(image)
    return image if found is None else f"{found[1] or ''}{folder.rstrip('/')}/{found[2]}"


def _is_marker(part: object) -> bool:
    # Where a key of a mapping is refused, the place ends in a mark that is no field.
    return part == "[key]"


def _shown(place: str, value: object) -> object:
    if place.startswith("env"):
        # Values of variables may be secrets.
        return "***"
    return value if len(repr(value)) <= _SHOWN else f"{repr(value)[:_SHOWN]}…"


def _known(place: tuple[int | str, ...]) -> str:
    section: type[BaseModel] = JobFile
    for part in place[:-1]:
        inner = next((kind for kind in _SECTIONS if _section_name(kind) == part), None)
        section = inner or ThresholdSection
    return f"there are {', '.join(section.model_fields)}"


_SECTIONS: tuple[type[_Section], ...] = (StartPointSection, ResultsSection, ThresholdsSection, MachineSection)
_NAMES = dict(zip(_SECTIONS, ("start_point", "results", "thresholds", "machine"), strict=True))


def _section_name(kind: type[_Section]) -> str:
    return _NAMES[kind]
