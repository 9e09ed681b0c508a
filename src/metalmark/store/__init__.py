"""Keeps accounts, projects, runners, specs, jobs, reports and blobs, on SQLite or PostgreSQL."""

from __future__ import annotations

from metalmark.store.database import Connection, Store, parse_database_url
from metalmark.store.notices import MISSED, Notice, NoticeKind, Notices, Subscription, announce
from metalmark.store.pace import Isolation, Pace
from metalmark.store.page import ALL, Page

__all__ = [
    "ALL",
    "MISSED",
    "Connection",
    "Isolation",
    "Notice",
    "NoticeKind",
    "Notices",
    "Pace",
    "Page",
    "Store",
    "Subscription",
    "announce",
    "parse_database_url",
]
