"""Runs written, changed at will, and read once more for their states."""
