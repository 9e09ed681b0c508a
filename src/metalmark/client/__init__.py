"""Talks to a Metalmark server: typed calls, retries, uploads."""
