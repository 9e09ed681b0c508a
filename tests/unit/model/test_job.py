from __future__ import annotations

from metalmark.model import JobSpec, plan


def test_a_plan_has_every_iteration_once_and_in_order() -> None:
    spec = JobSpec(image="x", iterations=3)
    steps = plan(spec, seed=7)
    assert [(step.variant, step.iteration) for step in steps.steps] == [("a", 1), ("a", 2), ("a", 3)]
    assert steps.seed == 7
    assert plan(spec, seed=8).steps == steps.steps
