"""Metalmark: continuous benchmarking on your own metal."""

__version__ = "0.1.0"
