"""Keeps accounts, projects, runners, specs, jobs, reports and blobs, on SQLite or PostgreSQL."""

from __future__ import annotations

from metalmark.store.claims import ClaimedJob

__all__ = ["ClaimedJob"]
