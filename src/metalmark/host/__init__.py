"""Describes this machine and decides which CPUs a job gets."""
