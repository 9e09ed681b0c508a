from __future__ import annotations

import pytest

from metalmark.client import INTERFACE_VERSION, JsonValue
from metalmark.client.strict import check_shape
from metalmark.model import ProtocolError
from metalmark.wire import PUBLIC_VERSION

KEY: JsonValue = {"uuid": "0197a1c3-0000-7000-8000-000000000001", "key": "bencher_runner_" + "a" * 30}


def test_answer_as_promised_is_taken_with_more_fields() -> None:
    check_shape({**KEY, "newer": 1}, "RunnerKeyBody")  # type: ignore[dict-item]  # the value is an object
    check_shape([KEY], "RunnerKeyBody[]")
    check_shape([], "RunnerKeyBody[]")


@pytest.mark.parametrize(
    ("value", "shape", "told"),
    [({"uuid": "x", "key": "k"}, "RunnerKeyBody", "uuid"), ([KEY], "RunnerKeyBody", "the answer"),
     (KEY, "RunnerKeyBody[]", "the answer"), ([KEY, {}], "RunnerKeyBody[]", "uuid"), (None, "SpecBody", "the answer")],
)  # fmt: skip
def test_other_answer_is_refused_by_its_field(value: JsonValue, shape: str, told: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_shape(value, shape)
    assert told in caught.value.found


def test_interface_is_the_one_of_the_messages() -> None:
    assert INTERFACE_VERSION == PUBLIC_VERSION
