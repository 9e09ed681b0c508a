"""Fakes that subclass the ports; never imported by production code."""
