"""`dynstat extract`."""

from __future__ import annotations


def extract() -> None:
    """Run extract."""
