"""Labelled datasets: schema, files, frames."""
