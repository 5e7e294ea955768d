"""Definitions of every metric as pure NumPy functions; `entries` registers them."""
