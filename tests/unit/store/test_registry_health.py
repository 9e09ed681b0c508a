"""Names of repositories as operators read them."""

from __future__ import annotations

from metalmark.store.registry_health import _name


def test_a_projects_own_repository_is_called_as_the_project() -> None:
    assert _name("widgets", "") == "widgets"
    assert _name("widgets", "app/debug") == "widgets/app/debug"
