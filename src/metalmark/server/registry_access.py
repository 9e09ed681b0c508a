"""Who may do what with a repository of the registry.

A repository belongs to the project that its name begins with, and what a caller may do with it is what they may do with
the project. A first push makes a project that is not there, as a run does.
"""

from __future__ import annotations

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


async def allowed(
    connection: HTTPConnection, context: ServerContext, name: str, action: Action, *, begins: bool = True
) -> RepositoryRef:
    """Return the repository of a request that the caller may do this with; for a push, its project is there then.

    Args:
        connection: The request.
        context: The server.
        name: The repository as the request calls it.
        action: What the request does.
        begins: Whether a push may begin with this, so that it makes a project that is not there.

    Raises:
        InputError: The name is none of a repository.
        Unauthenticated: It takes a credential, or another one.
        Forbidden: The caller may not do this, or not with this token.
        NotFound: There is no such repository that the caller may know of.
        TooManyRequests: The caller is over a rate limit.
    """
    remember_scope(connection, RepositoryScope.wanted(name, action))
    repository = RepositoryName.parse(name)
    caller = await registry_caller(connection, context)
    return await _allowed(_Request(connection, context, name, repository, caller, begins), action)


async def may_pull(connection: HTTPConnection, context: ServerContext, name: str) -> RepositoryRef | None:
    """Return another repository that the caller of a request may pull from, or None.

    Raises:
        InputError: The name is none of a repository.
    """
    repository = RepositoryName.parse(name)
    caller = await registry_caller(connection, context)
    try:
        return await _allowed(_Request(connection, context, name, repository, caller), Action.PULL)
    except (Unauthenticated, Forbidden, NotFound):
        return None


@dataclass(frozen=True)
class _Request:
    connection: HTTPConnection
    context: ServerContext
    name: str
    repository: RepositoryName
    caller: RegistryCaller
    begins: bool = False

    def ref(self, project: ProjectRecord) -> RepositoryRef:
        return RepositoryRef(
            project_id=project.id,
            project=project.slug,
            name=self.name,
            inner=self.repository.inner,
            actor=self.caller.actor,
            whole_project=self.caller.pull is not None,
        )


async def _allowed(request: _Request, action: Action) -> RepositoryRef:
    actor = request.caller.actor
    if actor is None:
        return await _of_runner(request, action)
    if not request.caller.reaches(request.name, action):
        remember_scope(request.connection, RepositoryScope.wanted(request.name, action), narrow=True)
        # Some programs take a wider token after a 403 only, others know beforehand what they need.
        raise Forbidden("this token is for something else", why=f"it does not open {action} of {request.name}")
    try:
        if action is Action.PUSH:
            return request.ref(await _pushed_to(request, actor))
        async with request.context.store.read() as connection:
            permission = _PERMISSIONS[action]
            return request.ref(await project_for(connection, actor, request.repository.project, permission))
    except (NotFound, Forbidden) as error:
        if isinstance(actor, Anonymous):
            # Whether there is such a project is nothing that a stranger learns.
            raise Unauthenticated("there is no credential", why=f"this needs one to {action} {request.name}") from error
        if isinstance(error, NotFound):
            raise NotFound("repository", request.name) from error
        raise


async def _of_runner(request: _Request, action: Action) -> RepositoryRef:
    pull = request.caller.pull
    async with request.context.store.read() as connection:
        project = await find_project(connection, request.repository.project)
    if project is None or pull is None or pull.repository != str(project.id) or action not in pull.actions:
        raise Forbidden(f"this token does not open {action} of {request.name}", why="it is for one project's images")
    return request.ref(project)


async def _pushed_to(request: _Request, actor: Actor) -> ProjectRecord:
    context, identifier = request.context, request.repository.project
    anonymous = context.config.auth.anonymous
    target = RunTarget(
        request=request.connection,
        actor=actor,
        project=identifier,
        image_project=None,
        context=RunContext(repository=str(identifier)),
    )

    async def find(connection: Connection) -> ProjectRecord | None:
        try:
            return await find_target(connection, target, anonymous=anonymous)
        except Unauthenticated as error:
            if isinstance(actor, ProjectKeyActor):
                # With another token of the same key it would be no better.
                raise Forbidden("the key is another project's", hint="use a key of the project") from error
            raise

    async with context.store.read() as connection:
        project = await find(connection)
    if project is None and not request.begins:
        raise NotFound("repository", request.name)
    unclaimed = project is not None and project.claimed is None and project.visibility is Visibility.PUBLIC
    if project is not None and not (unclaimed and isinstance(actor, UserActor)):
        return project
    now = context.clock.now()

    async def work(connection: Connection) -> ProjectRecord:
        return await open_target(connection, target, anonymous=anonymous, now=now)

    return await context.store.write(work)
