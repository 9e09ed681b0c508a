"""Runs commands isolated and pinned behind one interface."""
