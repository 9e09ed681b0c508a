"""What of a row is to be different: the columns that a change names, and no others."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def given(**values: object) -> dict[str, Any]:
    """Return those of the values that are not None: None leaves a column."""
    return {name: value for name, value in values.items() if value is not None}


def archived_at(now: datetime, *, archived: bool | None) -> dict[str, Any]:
    """Return the column that puts a thing into the archive or takes it out; None leaves it where it is."""
    return {} if archived is None else {"archived": now if archived else None}
