from __future__ import annotations

import pickle

import pytest

from metalmark import model
from metalmark.model import InputError, LayerRefused, MetalmarkError, PhaseTimeout, StableError, TransientError, errors


def every_error() -> list[type[MetalmarkError]]:
    found = [MetalmarkError]
    for kind in found:
        found.extend(kind.__subclasses__())
    return [kind for kind in found if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_the_tree_is_drawn_and_exported(kind: type[MetalmarkError]) -> None:
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__
    assert getattr(model, kind.__name__) is kind


def test_text_says_what_was_found_and_why() -> None:
    error = StableError("no squashfs", why="a root is mounted as one", hint="run `metalmark host setup`")
    assert str(error) == "no squashfs: a root is mounted as one"
    assert error.hint == "run `metalmark host setup`"
    assert str(StableError("no squashfs")) == "no squashfs"


def test_an_input_error_names_field_and_value() -> None:
    assert str(InputError("--memory", "1x", "no unit")) == "--memory is '1x': no unit"


def test_a_refused_layer_names_layer_and_entry() -> None:
    assert str(LayerRefused("sha256:ab", "etc/x", "it is bad")) == "layer sha256:ab, entry 'etc/x': it is bad"
    assert str(LayerRefused("sha256:ab", "", "it is bad")) == "layer sha256:ab: it is bad"


def test_a_time_out_is_worth_another_try() -> None:
    error = PhaseTimeout("kernel", 2.5)
    assert isinstance(error, TransientError)
    assert str(error) == "phase kernel did not end within 2.5 s"


def test_nothing_is_both_stable_and_transient() -> None:
    assert not [kind for kind in every_error() if issubclass(kind, StableError) and issubclass(kind, TransientError)]


def test_a_plain_error_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(StableError("found", why="why", hint="hint")))
    assert (again.found, again.why, again.hint) == ("found", "why", "hint")


def test_a_value_that_was_not_given_is_missing() -> None:
    assert str(InputError("image", None, "a runner needs one")) == "image is missing: a runner needs one"
    assert str(InputError("image", "", "no name")) == "image is '': no name"
