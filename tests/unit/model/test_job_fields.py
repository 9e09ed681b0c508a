from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from metalmark.model import ARGUMENTS_MAX, ENTRIES_MAX, PRIORITY_MAX, JobEnvironment, JobPaths, JobPriority, JobWords


@pytest.mark.parametrize(
    ("kind", "most", "over"),
    [
        (JobWords, ["x"] * ARGUMENTS_MAX, ["x"] * (ARGUMENTS_MAX + 1)),
        (JobPaths, ["x"] * ENTRIES_MAX, ["x"] * (ENTRIES_MAX + 1)),
        (JobEnvironment, {str(n): "" for n in range(ENTRIES_MAX)}, {str(n): "" for n in range(ENTRIES_MAX + 1)}),
        (JobPriority, PRIORITY_MAX, PRIORITY_MAX + 1),
        (JobWords, ["ü"], ["\ud800"]),
        (JobWords, [""], ["a\0"]),
        (JobEnvironment, {"A": "a=b"}, {"A=": "b"}),
        (JobEnvironment, {}, {"": "b"}),
        (JobEnvironment, {"A": ""}, {"A": "b\0"}),
    ],
)
def test_bounds(kind: Any, most: object, over: object) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(kind)
    assert adapter.validate_python(most) is not None
    with pytest.raises(ValidationError):
        adapter.validate_python(over)
