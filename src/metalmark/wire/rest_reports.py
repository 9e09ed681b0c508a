"""Reports on the wire: what a run was, on which branch and testbed, and what came of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from metalmark.model import UnicodeText
from metalmark.wire.job_config import Average, Fold
from metalmark.wire.rest_branches import BranchBody, StartPointUpdate
from metalmark.wire.rest_projects import ProjectBody, PublicUserBody
from metalmark.wire.rest_testbeds import TestbedBody
from metalmark.wire.scalars import (
    U32,
    Body,
    BranchIdField,
    DateTimeField,
    Flag,
    GitHashField,
    NameIdField,
    UuidField,
)

Adapter = Literal[
    "magic",
    "json",
    "rust_bench",
    "rust_criterion",
    "rust_iai",
    "rust_gungraun",
    "rust_gungraun_stdout",
    "rust_gungraun_json",
    "cpp_google",
    "cpp_catch2",
    "go_bench",
    "java_jmh",
    "c_sharp_dot_net",
    "js_benchmark",
    "js_time",
    "js_vitest",
    "python_asv",
    "python_pytest",
    "ruby_benchmark",
    "shell_hyperfine",
    "dart_benchmark_harness",
]
"""What reads a benchmark's output, as reports name it."""

AdapterName = Literal[
    Adapter,
    "rust_iai_callgrind",
    "rust",
    "cpp",
    "go",
    "java",
    "c_sharp",
    "js",
    "python",
    "ruby",
    "shell",
    "dart",
]
"""What requests may call it as well: an older name, and languages, which stand for ``magic``."""

_OTHER_NAMES: dict[str, Adapter] = {
    "rust_iai_callgrind": "rust_gungraun",
    **dict.fromkeys(("rust", "cpp", "go", "java", "c_sharp", "js", "python", "ruby", "shell", "dart"), "magic"),
}

ModelTest = Literal["static", "percentage", "z_score", "z", "t_test", "t", "log_normal", "iqr", "delta_iqr"]
SampleSize = Annotated[int, Field(strict=True, ge=1, le=2**32 - 1)]
WindowSeconds = Annotated[int, Field(strict=True, ge=1, le=2**32 - 1)]
Boundary = Annotated[float, Field(allow_inf_nan=False)]


def adapter_of(name: AdapterName | None) -> Adapter:
    """Return the adapter that a name in a request stands for; none stands for ``magic``."""
    if name is None:
        return "magic"
    other = _OTHER_NAMES.get(name)
    return other if other is not None else read_adapter(name)


def read_adapter(name: str) -> Adapter:
    """Return the adapter of a name that reports have.

    Raises:
        KeyError: There is none.
    """
    return _ADAPTERS[name]


# A lookup instead of a cast: what is no adapter cannot get through.
_ADAPTERS: dict[str, Adapter] = {
    "magic": "magic",
    "json": "json",
    "rust_bench": "rust_bench",
    "rust_criterion": "rust_criterion",
    "rust_iai": "rust_iai",
    "rust_gungraun": "rust_gungraun",
    "rust_gungraun_stdout": "rust_gungraun_stdout",
    "rust_gungraun_json": "rust_gungraun_json",
    "cpp_google": "cpp_google",
    "cpp_catch2": "cpp_catch2",
    "go_bench": "go_bench",
    "java_jmh": "java_jmh",
    "c_sharp_dot_net": "c_sharp_dot_net",
    "js_benchmark": "js_benchmark",
    "js_time": "js_time",
    "js_vitest": "js_vitest",
    "python_asv": "python_asv",
    "python_pytest": "python_pytest",
    "ruby_benchmark": "ruby_benchmark",
    "shell_hyperfine": "shell_hyperfine",
    "dart_benchmark_harness": "dart_benchmark_harness",
}


class ReportSettings(Body):
    """How results are to be read."""

    adapter: AdapterName | None = None
    average: Average | None = None
    fold: Fold | None = None


class ThresholdModel(Body):
    """A statistical test with its bounds, as runs carry it. Whether the bounds fit the test is checked later."""

    test: ModelTest
    min_sample_size: SampleSize | None = None
    max_sample_size: SampleSize | None = None
    window: WindowSeconds | None = None
    lower_boundary: Boundary | None = None
    upper_boundary: Boundary | None = None


class ReportThresholds(Body):
    """Thresholds that come with a run, by measure."""

    models: dict[NameIdField, ThresholdModel] | None = None
    reset: Flag | None = None


class NewReport(Body):
    """A report to be made of results that exist already."""

    branch: BranchIdField
    hash: GitHashField | None = None
    start_point: StartPointUpdate | None = None
    testbed: NameIdField
    thresholds: ReportThresholds | None = None
    start_time: DateTimeField
    end_time: DateTimeField
    results: tuple[UnicodeText, ...]
    """What the benchmark printed, one text an iteration."""
    settings: ReportSettings | None = None


class IterationCounts(Body):
    """How much one iteration has."""

    benchmarks: U32
    measures: U32


class AlertCounts(Body):
    """How many alerts a report has, and how many of them are active."""

    total: U32
    active: U32


class ReportCounts(Body):
    """How much a report has, whether it is shown or not."""

    results: tuple[IterationCounts, ...] = ()
    alerts: AlertCounts = AlertCounts(total=0, active=0)


def _absent(value: object) -> bool:
    return value is None


Rows = tuple[tuple[dict[str, JsonValue], ...], ...]


class ReportBody(Body):
    """A report. ``results`` and ``alerts`` are left out in lists that are not expanded, ``job`` where there is none."""

    uuid: UuidField
    user: PublicUserBody | None
    project: ProjectBody
    branch: BranchBody
    testbed: TestbedBody
    start_time: DateTimeField
    end_time: DateTimeField
    adapter: Adapter
    results: Rows | SkipJsonSchema[None] = Field(default=None, exclude_if=_absent)
    alerts: tuple[dict[str, JsonValue], ...] | SkipJsonSchema[None] = Field(default=None, exclude_if=_absent)
    counts: ReportCounts = ReportCounts()
    job: UuidField | SkipJsonSchema[None] = Field(default=None, exclude_if=_absent)
    created: DateTimeField
