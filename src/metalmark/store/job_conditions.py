"""Conditions on jobs, in the words by which both engines recognize their partial indexes.

They are text because a bound parameter may be anything, and an index for a condition serves only what implies it.
"""

from __future__ import annotations

from sqlalchemy import text

PENDING = text("jobs.status = 0")
ACTIVE_ROWS = text("jobs.status IN (1, 2)")
UNREAD = text("jobs.status = 3")
