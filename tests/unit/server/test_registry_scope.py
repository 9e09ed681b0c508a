from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import InputError
from metalmark.server.registry_scope import Action, RepositoryName, RepositoryScope, parse_scopes

PROJECT = UUID("01970000-0000-7000-8000-000000000001")


@pytest.mark.parametrize(
    ("text", "project", "inner"),
    [
        ("adder", "adder", ""),
        ("my-project/app", "my-project", "app"),
        ("adder/a/b.c__d", "adder", "a/b.c__d"),
        (str(PROJECT), PROJECT, ""),
        (f"{PROJECT}/x", PROJECT, "x"),
    ],
)
def test_a_name_is_split_at_its_project(text: str, project: object, inner: str) -> None:
    name = RepositoryName.parse(text)
    assert (name.project, name.inner) == (project, inner)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a/B",
        "a b",
        "a/../b",
        "a/.",
        "a_b",
        "-a",
        "a\n",
        "a:b",
        "é",
        "a/%2e",
        "a" * 256,
    ],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        RepositoryName.parse(text)


def test_scopes_of_one_repository_are_put_together_and_others_stay_apart() -> None:
    one, two = parse_scopes(["repository:a:pull repository:b/c:pull,push", "repository:a:push"])
    assert str(one) == "repository:a:pull,push"
    assert str(two) == "repository:b/c:pull,push"


def test_a_star_is_every_action_and_unknown_ones_are_none() -> None:
    assert parse_scopes(["repository:a:*"])[0].actions == frozenset(Action)
    assert parse_scopes(["repository:a:admin"])[0].actions == frozenset()


@pytest.mark.parametrize("text", ["registry:catalog:*", "repository:UPPER:pull", "repository:a/../b:pull"])
def test_what_nothing_here_would_open_is_left_out(text: str) -> None:
    assert parse_scopes([text]) == ()


@pytest.mark.parametrize("text", ["repository", "repository:a", ":a:pull", "pull"])
def test_a_scope_has_three_parts(text: str) -> None:
    with pytest.raises(InputError):
        parse_scopes([text])


def test_scopes_are_not_without_end() -> None:
    with pytest.raises(InputError, match="at most"):
        parse_scopes(["repository:a:pull " * 65])


@pytest.mark.parametrize(
    ("given", "action", "opened"),
    [
        ("pull", Action.PULL, True),
        ("pull", Action.PUSH, False),
        ("pull", Action.DELETE, False),
        ("push", Action.PULL, False),
        ("push", Action.PUSH, True),
        ("push", Action.DELETE, True),
        ("delete", Action.DELETE, True),
        ("delete", Action.PUSH, False),
    ],
)
def test_what_a_scope_opens(given: str, action: Action, opened: bool) -> None:
    (scope,) = parse_scopes([f"repository:a:{given}"])
    assert scope.opens("a", action) is opened
    assert not scope.opens("b", action)


@given(st.sampled_from(list(Action)))
def test_what_is_wanted_opens_what_it_is_wanted_for(action: Action) -> None:
    wanted = RepositoryScope.wanted("a/b", action)
    assert wanted.opens("a/b", action)
    assert parse_scopes([str(wanted)]) == (wanted,)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        scopes = parse_scopes([text])
    except InputError:
        return
    assert all(RepositoryScope(repository=scope.repository, actions=scope.actions) == scope for scope in scopes)
