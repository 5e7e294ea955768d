"""Sources that several definitions cite, and what was seen of them."""

from __future__ import annotations

from typing import Any

from ..registry import METRICS, Metric

PAPER1 = (
    "Bosange Batuli 2026, Four Dynamical Regimes in Large Language Models, "
    "doi:10.5281/zenodo.20348878 (abstract)"
)
PAPER2 = "Bosange Batuli 2026, Conditional Dynamic Signatures, doi:10.5281/zenodo.20361289 (forum posts)"
V20 = (
    "Bosange Batuli 2026, A Runtime Trajectory Dynamics Framework (V20), "
    "doi:10.5281/zenodo.20602685 (abstract)"
)
CURVATURE = "Hénaff, Goris & Simoncelli 2019, Nat. Neurosci. 22; Hosseini & Fedorenko 2023, arXiv:2311.04930"
REPLY = "critical reply to the V20 forum post (2026)"


def add(name: str, path: str, **fields: Any) -> Metric:
    """Register version 1 of a definition of this package."""
    return METRICS.add(Metric(name=name, version=1, path=f"dynstat.metrics.{path}", **fields))
