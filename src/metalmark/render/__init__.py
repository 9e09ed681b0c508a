"""A report or comparison, into text."""

from __future__ import annotations

from metalmark.render.job_table import job_table
from metalmark.render.run_table import run_table

__all__ = ["job_table", "run_table"]
