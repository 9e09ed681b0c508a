"""Who may do what with a repository of the registry.

A repository belongs to the project that its name begins with, and what a caller may do with it is what they may do with
the project. A first push makes a project that is not there, as a run does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from starlette.requests import HTTPConnection

from metalmark.model import (
    Forbidden,
    NotFound,
    Permission,
    Unauthenticated,
    Visibility,
)
from metalmark.server.actor import Actor, Anonymous, ProjectKeyActor, UserActor
from metalmark.server.context import ServerContext
from metalmark.server.permission import project_for
from metalmark.server.registry_caller import RegistryCaller, registry_caller
from metalmark.server.registry_challenge import remember_scope
from metalmark.server.registry_scope import Action, RepositoryName, RepositoryScope
from metalmark.server.run_context import RunContext
from metalmark.server.run_project import RunTarget, find_target, open_target
from metalmark.server.signer import Pull
from metalmark.store import Connection, ProjectRecord, find_project

# Who pushes can put another image under a tag anyway; so a project's key, which has no other deletions, has these.
_PERMISSIONS = {Action.PULL: Permission.VIEW, Action.DELETE: Permission.CREATE}


@dataclass(frozen=True, kw_only=True)
class RepositoryRef:
    """A repository that the caller may do with what they are about to do."""

    project_id: UUID
    project: str
    """The project's slug."""
    name: str
    """The repository as the request calls it."""
    inner: str
    """Its name within the project; empty for the project's own."""
    actor: Actor | None
    """Who asks; None for a runner."""
    whole_project: bool = False
    """Whether a digest may be in any repository of the project: a runner knows the project alone."""


@asynccontextmanager
async def reached(
    connection: HTTPConnection, context: ServerContext, name: str, action: Action
) -> AsyncIterator[tuple[RepositoryRef, Connection]]:
    """Give the repository of a request that the caller may do this with, and the read in which that was looked up.

    What the request is about is looked up in the same read: each image is dozens of requests.

    Args:
        connection: The request.
        context: The server.
        name: The repository as the request calls it.
        action: What the request does; no push begins with it.

    Raises:
        InputError: The name is none of a repository.
        Unauthenticated: It takes a credential, or another one.
        Forbidden: The caller may not do this, or not with this token.
        NotFound: There is no such repository that the caller may know of.
        TooManyRequests: The caller is over a rate limit.
    """
    request = _asked(connection, context, name, action)
    async with context.store.read() as reading:
        found = await _found(request, reading, await registry_caller(connection, context, reading))
        if found.project is None:
            raise NotFound("repository", name)
        yield found.ref(found.project), reading


async def allowed(connection: HTTPConnection, context: ServerContext, name: str, action: Action) -> RepositoryRef:
    """Return the repository of a request that the caller may do this with; of a push, its project is there then.

    Args:
        connection: The request.
        context: The server.
        name: The repository as the request calls it.
        action: What the request does.

    Raises:
        MetalmarkError: As `reached`.
    """
    request = _asked(connection, context, name, action)
    async with context.store.read() as reading:
        found = await _found(request, reading, await registry_caller(connection, context, reading))
    if found.project is not None and not found.is_claimed_by_this:
        return found.ref(found.project)
    return found.ref(await _opened(found))


async def may_pull(connection: HTTPConnection, context: ServerContext, name: str) -> RepositoryRef | None:
    """Return another repository that the caller of a request may pull from, or None.

    Raises:
        InputError: The name is none of a repository.
    """
    request = _Request(connection, context, name, RepositoryName.parse(name), Action.PULL)
    async with context.store.read() as reading:
        caller = await registry_caller(connection, context, reading)
        try:
            found = await _found(request, reading, caller)
        except (Unauthenticated, Forbidden, NotFound):
            return None
    return None if found.project is None else found.ref(found.project)


@dataclass(frozen=True)
class _Request:
    connection: HTTPConnection
    context: ServerContext
    name: str
    repository: RepositoryName
    action: Action


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a request is about, and who asks."""

    request: _Request
    caller: RegistryCaller
    project: ProjectRecord | None
    """None where it is one that the caller may make."""

    @property
    def is_claimed_by_this(self) -> bool:
        """Whether it is nobody's, and a user pushes to it."""
        project = self.project
        unclaimed = project is not None and project.claimed is None and project.visibility is Visibility.PUBLIC
        return self.request.action is Action.PUSH and unclaimed and isinstance(self.caller.actor, UserActor)

    def ref(self, project: ProjectRecord) -> RepositoryRef:
        return RepositoryRef(
            project_id=project.id,
            project=project.slug,
            name=self.request.name,
            inner=self.request.repository.inner,
            actor=self.caller.actor,
            whole_project=self.caller.pull is not None,
        )


def _asked(connection: HTTPConnection, context: ServerContext, name: str, action: Action) -> _Request:
    remember_scope(connection, RepositoryScope.wanted(name, action))
    return _Request(connection, context, name, RepositoryName.parse(name), action)


async def _found(request: _Request, reading: Connection, caller: RegistryCaller) -> _Found:
    return _Found(request=request, caller=caller, project=await _project(request, reading, caller))


async def _project(request: _Request, reading: Connection, caller: RegistryCaller) -> ProjectRecord | None:
    actor, action = caller.actor, request.action
    if actor is None:
        return await _of_runner(request, reading, caller.pull)
    if not caller.reaches(request.name, action):
        remember_scope(request.connection, RepositoryScope.wanted(request.name, action), narrow=True)
        # Some programs take a wider token after a 403 only, others know beforehand what they need.
        raise Forbidden("this token is for something else", why=f"it does not open {action} of {request.name}")
    try:
        if action is Action.PUSH:
            return await _pushed_to(request, reading, actor)
        return await project_for(reading, actor, request.repository.project, _PERMISSIONS[action])
    except (NotFound, Forbidden) as error:
        if isinstance(actor, Anonymous):
            # Whether there is such a project is nothing that a stranger learns.
            raise Unauthenticated("there is no credential", why=f"this needs one to {action} {request.name}") from error
        if isinstance(error, NotFound):
            raise NotFound("repository", request.name) from error
        raise


async def _of_runner(request: _Request, reading: Connection, pull: Pull | None) -> ProjectRecord:
    action, project = request.action, await find_project(reading, request.repository.project)
    if project is None or pull is None or pull.repository != str(project.id) or action not in pull.actions:
        raise Forbidden(f"this token does not open {action} of {request.name}", why="it is for one project's images")
    return project


def _target(request: _Request, actor: Actor) -> RunTarget:
    identifier = request.repository.project
    return RunTarget(
        request=request.connection,
        actor=actor,
        project=identifier,
        image_project=None,
        context=RunContext(repository=str(identifier)),
    )


async def _pushed_to(request: _Request, reading: Connection, actor: Actor) -> ProjectRecord | None:
    try:
        return await find_target(reading, _target(request, actor), anonymous=request.context.config.auth.anonymous)
    except Unauthenticated as error:
        if isinstance(actor, ProjectKeyActor):
            # With another token of the same key it would be no better.
            raise Forbidden("the key is another project's", hint="use a key of the project") from error
        raise


async def _opened(found: _Found) -> ProjectRecord:
    request, actor = found.request, found.caller.actor
    assert actor is not None, "a runner makes no projects"
    context, target = request.context, _target(request, actor)
    now = context.clock.now()

    async def work(connection: Connection) -> ProjectRecord:
        return await open_target(connection, target, anonymous=context.config.auth.anonymous, now=now)

    return await context.store.write(work)
