"""Where a run says it was submitted from, and the defaults that follow from that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from metalmark.model import BranchName, GitHash, InputError, ResourceName, Slug, parse_name_id, slugify
from metalmark.wire import CONTEXT_PREFIX

T = TypeVar("T")

DEFAULT_BRANCH = Slug("main")
DEFAULT_TESTBED = Slug("localhost")
DEFAULT_PROJECT_NAME = ResourceName("Project")
_PROJECT_NAME_LENGTH = 64
_NAME_PART = 42
_HASH_PART = 7
_FINGERPRINT_PART = 13


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a run tells of its surroundings. Each may be empty, and none is stored."""

    repository: str = ""
    """Name of the folder that holds the repository."""
    root_commit: str = ""
    branch: str = ""
    commit: str = ""
    os: str = ""
    fingerprint: str = ""
    """Stands for the machine."""

    @classmethod
    def read(cls, context: Mapping[str, str]) -> RunContext:
        """Take what is known out of a run's context; other keys are ignored."""

        def of(path: str) -> str:
            return context.get(f"{CONTEXT_PREFIX}{path}", "")

        return cls(
            repository=of("/repo/name"),
            root_commit=of("/repo/hash"),
            branch=of("/branch/ref/name"),
            commit=of("/branch/hash"),
            os=of("/testbed/os"),
            fingerprint=of("/testbed/fingerprint"),
        )

    @property
    def project_slug(self) -> Slug | None:
        """What the project is called in URLs: repository, first commit and machine; None when none is known."""
        parts = self.repository[:_NAME_PART], self.root_commit[:_HASH_PART], self.fingerprint[:_FINGERPRINT_PART]
        slug = slugify(" ".join(parts))
        return Slug(slug) if slug else None

    @property
    def project_name(self) -> ResourceName:
        """What a project that has to be made is called."""
        name = _parsed(lambda: ResourceName.parse(_cut(self.repository, _PROJECT_NAME_LENGTH)))
        return DEFAULT_PROJECT_NAME if name is None else name

    @property
    def branch_id(self) -> UUID | Slug | BranchName:
        """The branch of a run that names none."""
        found = _parsed(lambda: parse_name_id(self.branch, BranchName))
        return DEFAULT_BRANCH if found is None else found

    @property
    def hash(self) -> GitHash | None:
        """The commit of a run that names none."""
        return _parsed(lambda: GitHash.parse(self.commit))

    @property
    def testbed_id(self) -> UUID | Slug | ResourceName:
        """The testbed of a run that names none and has no job."""
        found = _parsed(lambda: parse_name_id(self.os, ResourceName))
        return DEFAULT_TESTBED if found is None else found


def _parsed(parse: Callable[[], T]) -> T | None:
    # A default that cannot be used is no error: nobody asked for it.
    try:
        return parse()
    except InputError:
        return None


def _cut(text: str, max_bytes: int) -> str:
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore").strip()
