"""Keeps accounts, projects, runners, specs, jobs, reports and blobs, on SQLite or PostgreSQL."""
