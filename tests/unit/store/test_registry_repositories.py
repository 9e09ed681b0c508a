"""Where something of the registry is looked for."""

from __future__ import annotations

from metalmark.model import new_id
from metalmark.store import RepositoryPlace

PROJECT = new_id()


def values_of(place: RepositoryPlace) -> list[object]:
    return list(place.includes().compile().params.values())


def test_a_place_is_one_repository() -> None:
    assert values_of(RepositoryPlace(project_id=PROJECT, inner="app")) == [PROJECT, "app"]
    # The project's own, not any of the project.
    assert values_of(RepositoryPlace(project_id=PROJECT)) == [PROJECT, ""]


def test_a_place_may_be_a_whole_project() -> None:
    assert values_of(RepositoryPlace(project_id=PROJECT, inner="app", whole_project=True)) == [PROJECT]
