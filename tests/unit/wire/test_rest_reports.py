from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import pytest
from pydantic import ValidationError

from metalmark.model import BranchName, ResourceName, Slug, Visibility
from metalmark.wire import (
    Adapter,
    AdapterName,
    BranchBody,
    HeadBody,
    NewReport,
    ProjectBody,
    ReportBody,
    TestbedBody,
    ThresholdModel,
    adapter_of,
    read_adapter,
)

NOW = datetime(2026, 3, 1, 10, 0, 43, 999_999, tzinfo=UTC)
ONE = UUID(int=1)
BODY = {
    "branch": "main",
    "testbed": "Rack 7",
    "start_time": "2026-03-01T10:00:00Z",
    "end_time": "2026-03-01T10:00:42Z",
    "results": ["{}"],
}


def report(**fields: Any) -> dict[str, Any]:
    times: Any = {"created": NOW, "modified": NOW, "archived": None}
    project = ProjectBody(
        uuid=ONE,
        organization=ONE,
        name=ResourceName("Widgets"),
        slug=Slug("widgets"),
        visibility=Visibility.PUBLIC,
        created=NOW,
        modified=NOW,
    )
    branch = BranchBody(
        uuid=ONE,
        project=ONE,
        name=BranchName("main"),
        slug=Slug("main"),
        head=HeadBody(uuid=ONE, created=NOW),
        **times,
    )
    testbed = TestbedBody(uuid=ONE, project=ONE, name=ResourceName("Linux"), slug=Slug("linux"), **times)
    body = ReportBody(
        uuid=ONE,
        user=None,
        project=project,
        branch=branch,
        testbed=testbed,
        start_time=NOW,
        end_time=NOW,
        adapter="json",
        created=NOW,
        **fields,
    )
    document: dict[str, Any] = json.loads(body.model_dump_json())
    return document


def test_what_is_not_there_is_left_out_and_what_is_null_is_null() -> None:
    collapsed = report()
    assert not {"results", "alerts", "job"} & set(collapsed)
    assert collapsed["user"] is None
    assert collapsed["counts"] == {"results": [], "alerts": {"total": 0, "active": 0}}
    assert collapsed["branch"]["head"] == {
        "uuid": str(ONE),
        "start_point": None,
        "version": None,
        "created": "2026-03-01T10:00:43Z",
        "replaced": None,
    }
    assert collapsed["testbed"]["spec"] is None
    full = report(results=(), alerts=(), job=ONE)
    assert (full["results"], full["alerts"], full["job"]) == ([], [], str(ONE))


def test_every_name_of_an_adapter_stands_for_one_that_reports_have() -> None:
    names = set(get_args(Adapter))
    for name in get_args(AdapterName):
        adapter = adapter_of(name)
        assert adapter in names
        assert adapter == name or name not in names
    assert {read_adapter(name) for name in names} == names
    assert (adapter_of(None), adapter_of("rust_iai_callgrind"), adapter_of("cpp")) == (
        "magic",
        "rust_gungraun",
        "magic",
    )


def test_a_new_report_is_read() -> None:
    body = NewReport.model_validate(
        {**BODY, "thresholds": {"models": {"Lat ency": {"test": "t", "upper_boundary": 0.99}}}, "other": 1}
    )
    assert (type(body.branch), type(body.testbed)) == (Slug, ResourceName)
    assert body.thresholds is not None
    assert body.thresholds.models == {"Lat ency": ThresholdModel(test="t", upper_boundary=0.99)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("branch", "a..b"),
        ("branch", None),
        ("testbed", ""),
        ("results", "text"),
        ("results", [1]),
        ("results", ["\ud800"]),
        ("hash", "abc"),
        ("start_time", "2026-03-01T10:00:00"),
        ("end_time", 0),
        ("settings", {"adapter": "cobol"}),
        ("settings", {"fold": "sum"}),
        ("settings", {"average": "mode"}),
        ("start_point", {"max_versions": -1}),
        ("start_point", {"reset": "yes"}),
        ("thresholds", {"models": {"": {"test": "t"}}}),
        ("thresholds", {"models": {"x": {"test": "vibes"}}}),
        ("thresholds", {"models": {"x": {"test": "t", "max_sample_size": 64.0}}}),
        ("thresholds", {"models": {"x": {"test": "t", "window": 0}}}),
        ("thresholds", {"models": {"x": {"test": "t", "upper_boundary": float("inf")}}}),
    ],
)
def test_a_value_out_of_bounds_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        NewReport.model_validate({**BODY, field: value})
