"""Registered studies: one folder each."""
