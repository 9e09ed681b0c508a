"""What is wanted of a repository: its name, and the scopes of tokens.

Names: OCI distribution specification 1.1, "Pulling manifests", with a project first. Scopes: the Docker registry token
specification, "Token scope".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from metalmark.model import InputError, ResourceId, parse_resource_id

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_NAME_MAX_LENGTH = 255
_SCOPES_MAX = 64
_SHOWN = 80
_REPOSITORY = "repository"
_EVERYTHING = "*"


class Action(StrEnum):
    """What a request does with a repository."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


_ASKED = {
    Action.PULL: (Action.PULL,),
    # Who pushes looks first what is there.
    Action.PUSH: (Action.PULL, Action.PUSH),
    Action.DELETE: (Action.PULL, Action.DELETE),
}
# A token to push with opens deletions too: clients of both take one token for all that they do.
_OPENED_BY = {
    Action.PULL: frozenset((Action.PULL,)),
    Action.PUSH: frozenset((Action.PUSH,)),
    Action.DELETE: frozenset((Action.DELETE, Action.PUSH)),
}


@dataclass(frozen=True, kw_only=True)
class RepositoryName:
    """The name of a repository, split at its project."""

    project: ResourceId
    inner: str
    """What comes after the project; empty for the project's own repository."""

    @classmethod
    def parse(cls, text: str) -> RepositoryName:
        """Read a name, ``PROJECT`` or ``PROJECT/NAME…``.

        Raises:
            InputError: It is no name of a repository, or does not begin with a slug or UUID.
        """
        if len(text) > _NAME_MAX_LENGTH or not _NAME.fullmatch(text):
            raise InputError("repository", text[:_SHOWN], "this is not the name of a repository", hint="PROJECT/NAME")
        project, _, inner = text.partition("/")
        return cls(project=parse_resource_id(project, field="repository"), inner=inner)


@dataclass(frozen=True, kw_only=True)
class RepositoryScope:
    """What a token lets its holder do with a repository, as far as the holder may anyway."""

    repository: str
    actions: frozenset[Action]

    @classmethod
    def wanted(cls, repository: str, action: Action) -> RepositoryScope:
        """Return what somebody should ask for who is about to do this."""
        return cls(repository=repository, actions=frozenset(_ASKED[action]))

    def opens(self, repository: str, action: Action) -> bool:
        """Whether this is in the scope."""
        return self.repository == repository and not self.actions.isdisjoint(_OPENED_BY[action])

    def __str__(self) -> str:
        actions = ",".join(action for action in Action if action in self.actions)
        return f"{_REPOSITORY}:{self.repository}:{actions}"


def parse_scopes(texts: Iterable[str]) -> tuple[RepositoryScope, ...]:
    """Read the scopes that a token is asked for; each text may hold several, with spaces between.

    What is not about a repository of a right name is left out, as are unknown actions: nothing here would open it.

    Raises:
        InputError: A scope does not have three parts, or there are too many.
    """
    words = [word for text in texts for word in text.split()]
    if len(words) > _SCOPES_MAX:
        raise InputError("scope", f"{len(words)} scopes", f"a token has at most {_SCOPES_MAX}")
    found: dict[str, frozenset[Action]] = {}
    for word in words:
        kind, _, rest = word.partition(":")
        name, colon, actions = rest.rpartition(":")
        if not kind or not colon or not name:
            raise InputError("scope", word[:_SHOWN], "this is not TYPE:NAME:ACTIONS", hint="repository:NAME:pull,push")
        if kind == _REPOSITORY and len(name) <= _NAME_MAX_LENGTH and _NAME.fullmatch(name):
            found[name] = found.get(name, frozenset()) | _actions(actions)
    return tuple(RepositoryScope(repository=name, actions=actions) for name, actions in found.items())


def _actions(text: str) -> frozenset[Action]:
    words = frozenset(text.split(","))
    return frozenset(action for action in Action if _EVERYTHING in words or action in words)
