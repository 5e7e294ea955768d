"""Estimates, resampling and decision rules: how a number leaves dynstat."""
