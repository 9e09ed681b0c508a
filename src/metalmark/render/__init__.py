"""A report or comparison, into text."""

from __future__ import annotations

from metalmark.render.run_table import run_table

__all__ = ["run_table"]
