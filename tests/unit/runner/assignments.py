"""Assignments for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from metalmark.runner.assignment import Assignment
from metalmark.wire import JobConfig, ProvedCapabilities, SpecBody

_SPEC = {
    "uuid": str(UUID(int=5)), "name": "Small", "slug": "small", "os": "linux", "architecture": "x86_64",
    "sandbox": "container", "cpu": 1, "memory": 2**29, "disk": 2**30, "network": False,
    "created": "2026-01-31T00:00:00Z", "modified": "2026-01-31T00:00:00Z",
}  # fmt: skip
_CONFIG = {
    "registry": "http://localhost:6610/",
    "project": str(UUID(int=6)),
    "digest": "sha256:" + "a" * 64,
    "timeout": 60,
}
CAPABLE = ProvedCapabilities.model_validate(
    {"os": "linux", "architecture": "x86_64", "sandboxes": ("qemu", "container"), "vcpus": 4, "memory_bytes": 2**32}
)


def assignment(
    job: UUID | None = None, lease: int = 1, *, spec: dict[str, Any] | None = None, **config: Any
) -> Assignment:
    """Return an assignment; what is given differs from a plain one."""
    made = JobConfig.model_validate(_CONFIG | config)
    return Assignment(
        job=job or uuid4(),
        lease=lease,
        spec=SpecBody.model_validate(_SPEC | (spec or {})),
        config=made,
        token="secret",
        timeout_s=made.timeout,
        created=datetime(2026, 1, 31, tzinfo=UTC),
    )
