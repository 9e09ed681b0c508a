from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import BranchName, ResourceName, Slug
from metalmark.server.run_context import DEFAULT_BRANCH, DEFAULT_TESTBED, RunContext

PREFIX = "bencher.dev/v0"


def read(**values: str) -> RunContext:
    return RunContext.read({f"{PREFIX}/{name.replace('__', '/')}": value for name, value in values.items()})


def test_a_project_is_called_after_repository_first_commit_and_machine() -> None:
    said = read(repo__name="Widgets", repo__hash="6b1f0c9d2e3a", testbed__fingerprint="abc123def456ghi")
    assert said.project_slug == "widgets-6b1f0c9-abc123def456g"
    assert said.project_name == "Widgets"


@pytest.mark.parametrize(
    ("values", "slug", "name"),
    [
        ({}, None, "Project"),
        ({"repo__name": "   "}, None, "Project"),
        ({"repo__name": "…"}, None, "…"),
        ({"repo__hash": "6b1f0c9d"}, "6b1f0c9", "Project"),
        ({"repo__name": "x" * 50}, "x" * 42, "x" * 50),
        ({"repo__name": "ä" * 50}, "a" * 42, "ä" * 32),
        ({"repo__name": "a\nb"}, "a-b", "Project"),
    ],
)
def test_what_a_project_is_called_when_parts_are_missing(values: dict[str, str], slug: str | None, name: str) -> None:
    said = read(**values)
    assert (said.project_slug, said.project_name) == (slug, name)


def test_defaults_of_branch_commit_and_testbed() -> None:
    said = read(branch__ref__name="feature/x", branch__hash="A" * 40, testbed__os="Linux")
    assert isinstance(said.branch_id, BranchName)
    assert said.branch_id == "feature/x"
    assert said.hash == "A" * 40
    assert isinstance(said.testbed_id, ResourceName)
    assert said.testbed_id == "Linux"
    assert isinstance(read(branch__ref__name="main").branch_id, Slug)
    assert read(branch__ref__name="0" * 32).branch_id == UUID(int=0)


@pytest.mark.parametrize("branch", ["", "a..b", "a b", "x" * 257, ".hidden", "\0", "\ud800"])
def test_a_default_that_cannot_be_used_falls_through(branch: str) -> None:
    said = read(branch__ref__name=branch, branch__hash="abc", testbed__os=" x")
    assert (said.branch_id, said.hash, said.testbed_id) == (DEFAULT_BRANCH, None, DEFAULT_TESTBED)


def test_other_keys_are_ignored() -> None:
    assert RunContext.read({"repo/name": "x", f"{PREFIX}/other": "y", "": "z"}) == RunContext()


@given(st.text(), st.text(), st.text())
def test_whatever_is_said_gives_names_that_can_be_used(repository: str, branch: str, os: str) -> None:
    said = RunContext(repository=repository, branch=branch, os=os)
    if said.project_slug is not None:
        Slug.parse(said.project_slug)
    ResourceName.parse(said.project_name)
    assert said.branch_id
    assert said.testbed_id
