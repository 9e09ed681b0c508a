from __future__ import annotations

import pytest
from pydantic import ValidationError

from metalmark.wire import TestbedPatch


def test_null_clears_the_spec_and_nothing_else() -> None:
    assert TestbedPatch.model_validate({"spec": None}).clears("spec")
    assert not TestbedPatch.model_validate({"archived": True}).clears("spec")
    assert not TestbedPatch.model_validate({"spec": "small-vm"}).clears("spec")


@pytest.mark.parametrize("body", [{"name": None}, {"slug": None}, {"archived": None}, {"units": "x"}, {"archived": 1}])
def test_other_nulls_and_unknown_fields_are_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TestbedPatch.model_validate(body)
