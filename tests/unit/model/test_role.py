from __future__ import annotations

from metalmark.model import (
    PROJECT_KEY_PERMISSIONS,
    OrganizationRole,
    Permission,
    ProjectRole,
    permitted_in_organization,
    permitted_in_project,
)

EVERYTHING = frozenset(Permission)


def test_members_see_and_leaders_do_everything() -> None:
    assert permitted_in_organization(None) == frozenset()
    assert permitted_in_organization(OrganizationRole.MEMBER) == {Permission.VIEW, Permission.VIEW_ROLE}
    assert permitted_in_organization(OrganizationRole.LEADER) == EVERYTHING


def test_each_role_of_a_project_adds_to_the_one_before() -> None:
    viewer, developer, maintainer = (permitted_in_project(role, None) for role in ProjectRole)
    assert viewer == {Permission.VIEW, Permission.VIEW_ROLE}
    assert developer - viewer == {Permission.CREATE, Permission.EDIT, Permission.DELETE}
    assert maintainer == EVERYTHING


def test_a_leader_has_every_role_in_the_projects_and_a_member_none() -> None:
    assert permitted_in_project(None, OrganizationRole.LEADER) == EVERYTHING
    assert permitted_in_project(ProjectRole.VIEWER, OrganizationRole.LEADER) == EVERYTHING
    assert permitted_in_project(None, OrganizationRole.MEMBER) == frozenset()


def test_the_key_of_a_project_deletes_and_manages_nothing() -> None:
    assert not PROJECT_KEY_PERMISSIONS & {Permission.DELETE, Permission.MANAGE, Permission.EDIT_ROLE}
    assert Permission.CREATE in PROJECT_KEY_PERMISSIONS
