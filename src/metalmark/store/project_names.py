"""A name for a project that nobody chose: free within its organization."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import ResourceName
from metalmark.store.tables import projects

_LONGEST_STEM_BYTES = 41
_CUT_BYTES = 38


async def free_project_name(connection: AsyncConnection, *, organization_id: UUID, name: ResourceName) -> ResourceName:
    """Return the name if no project of the organization has it, else the name with the next number: ``Name (2)``."""
    taken = await _like(connection, organization_id, name)
    if name not in taken:
        return name
    stem = _stem(name)
    numbered = await _like(connection, organization_id, stem)
    last = max((_number(other, stem) for other in numbered), default=0)
    return ResourceName.parse(f"{stem} ({last + 1})")


def _stem(name: str) -> str:
    encoded = name.encode()
    if len(encoded) <= _LONGEST_STEM_BYTES:
        return name
    return encoded[:_CUT_BYTES].decode(errors="ignore").rstrip() + "..."


def _number(name: str, stem: str) -> int:
    rest = name.removeprefix(stem)
    digits = rest[2:-1]
    well_formed = rest[:2] == " (" and rest[-1:] == ")" and digits.isascii() and digits.isdigit() and len(digits) <= 9
    return int(digits) if well_formed else 0


async def _like(connection: AsyncConnection, organization_id: UUID, stem: str) -> frozenset[str]:
    alike = or_(projects.c.name == stem, projects.c.name.startswith(f"{stem} (", autoescape=True))
    query = select(projects.c.name).where(and_(projects.c.organization_id == organization_id, alike))
    return frozenset((await connection.execute(query)).scalars())
