"""What members of organizations and projects may do."""

from __future__ import annotations

from enum import StrEnum


class Permission(StrEnum):
    """One kind of act on an organization or a project."""

    VIEW = "view"
    CREATE = "create"
    EDIT = "edit"
    DELETE = "delete"
    MANAGE = "manage"
    VIEW_ROLE = "view_role"
    CREATE_ROLE = "create_role"
    EDIT_ROLE = "edit_role"
    DELETE_ROLE = "delete_role"


class OrganizationRole(StrEnum):
    """What a member is in an organization."""

    MEMBER = "member"
    """Sees it."""
    LEADER = "leader"
    """May do everything with it, and is maintainer of all its projects."""


class ProjectRole(StrEnum):
    """What a member is in a project."""

    VIEWER = "viewer"
    """Sees it."""
    DEVELOPER = "developer"
    """Also makes, changes and deletes what is in it."""
    MAINTAINER = "maintainer"
    """May do everything with it, keys and roles included."""


_SEE = frozenset((Permission.VIEW, Permission.VIEW_ROLE))
_WORK = frozenset((Permission.CREATE, Permission.EDIT, Permission.DELETE))
_EVERYTHING = frozenset(Permission)

_OF_ORGANIZATION = {OrganizationRole.MEMBER: _SEE, OrganizationRole.LEADER: _EVERYTHING}
_OF_PROJECT = {
    ProjectRole.VIEWER: _SEE,
    ProjectRole.DEVELOPER: _SEE | _WORK,
    ProjectRole.MAINTAINER: _EVERYTHING,
}
PROJECT_KEY_PERMISSIONS = _SEE | {Permission.CREATE, Permission.EDIT}
"""What the key of a project may do with its project. Routes that take no keys, or let them change no names, say so."""


def permitted_in_organization(role: OrganizationRole | None) -> frozenset[Permission]:
    """Return what somebody with a role in an organization, or with none, may do with it."""
    return _OF_ORGANIZATION[role] if role is not None else frozenset()


def permitted_in_project(role: ProjectRole | None, organization: OrganizationRole | None) -> frozenset[Permission]:
    """Return what somebody may do with a project.

    Args:
        role: Their role in the project; None for none.
        organization: Their role in the project's organization; leaders have every role in its projects.
    """
    if organization is OrganizationRole.LEADER:
        return _EVERYTHING
    return _OF_PROJECT[role] if role is not None else frozenset()
