"""Figures of a report, drawn from results.json alone, with alt text made from the same numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dynstat.escape import visible

from . import multiverse
from .markup import text
from .results import EstimateRow, Results

if TYPE_CHECKING:
    from dynstat.plotting.shares import ShareRow

MOST_UNIVERSES = 400


def shares(results: Results, out: Path) -> str:
    """Draw the variance shares of every analysis that has them; return the Markdown of the figures."""
    from dynstat.plotting.shares import describe_shares, variance_shares
    from dynstat.plotting.style import save_svg

    blocks = []
    for number, analysis in enumerate(share_analyses(results)):
        rows = _rows(results, analysis)
        level = next(
            (n for e in results.estimates if e.analysis == analysis and (n := e.number("level"))), 0.95
        )
        name = "variance-shares" if number == 0 else f"variance-shares-{number + 1}"
        alt = describe_shares(rows, level=level)
        band = " Grey band: the range that a claim names." if any(r.claimed for r in rows) else ""
        save_svg(variance_shares(rows, level=level), out / "figures" / f"{name}.svg", alt)
        blocks.append(
            f"![Shares of variance ({text(analysis)}). Filled marker and thick line: this panel, unadjusted "
            f"{100 * level:g} % interval. Open circle and thin line: a population of models. Open square: "
            f"chance level.{band}](figures/{name}.svg){{#fig-{name} "
            f'fig-alt="{text(alt)}" width=6.5in}}'
        )
    return "\n\n".join(blocks)


def claims(results: Results, out: Path) -> str:
    """Draw every claim's estimate over the band that decides it; return the Markdown of the figure."""
    from dynstat.plotting.claims import ClaimRow, claims_forest, describe_claims
    from dynstat.plotting.style import save_svg

    rows, levels = [], set()
    for h in results.hypotheses:
        bounds = results.records(f"{h}.bound")
        for i in range(1, max(len(bounds), 1) + 1):
            start = h if i == 1 else f"{h}.part.{i}"
            bound = bounds.get(str(i), {})
            stopped = results.decision(h) == "inadmissible"
            value = None if stopped else results.number(f"{start}.estimate")
            edges = [bound[k].raw for k in ("low", "high") if k in bound]
            quantity = bound["quantity"].formatted if "quantity" in bound else results.raw(f"{h}.quantity")
            if value is not None:
                levels.add(results.number(f"{start}.level"))
            rows.append(
                ClaimRow(
                    h,
                    visible(str(quantity or "")),
                    value,
                    results.number(f"{start}.low"),
                    results.number(f"{start}.high"),
                    results.decision(h),
                    str(bound["kind"].raw) if "kind" in bound else "in_range",
                    (edges[0], edges[1]) if len(edges) == 2 else claimed_range(results, h),
                    bound["scale"].formatted if "scale" in bound else _scale(results, h),
                )
            )
    if not any(row.value is not None for row in rows):
        return ""
    level = levels.pop() if len(levels) == 1 else None
    alt = describe_claims(rows, level=level)
    save_svg(claims_forest(rows, level=level), out / "figures" / "claims.svg", alt)
    percent = f"{100 * level:g} % " if level is not None else ""
    return (
        f"![Every claim: its estimate with unadjusted {percent}interval, over what decides it. Grey: the "
        "range that the claim names; hatched: effects smaller than the smallest of interest; dashed: a "
        "threshold, or zero. Marker and colour show the decision.](figures/claims.svg)"
        f'{{#fig-claims fig-alt="{text(alt)}" width=6.5in}}'
    )


def curves(results: Results, out: Path) -> dict[str, str]:
    """Draw the specification curve of every multiverse; return the Markdown of the figures by hypothesis.

    A multiverse of more universes than one curve can show has its tables only.
    """
    named = [h for h in multiverse.hypotheses(results) if f"multiverse.{h}.quantity" in results]
    if not named:
        return {}
    from dynstat.plotting.specification_curve import describe_curve, specification_curve
    from dynstat.plotting.style import save_svg
    from dynstat.prereg.multiverse_rows import drawn_from

    values = {v.key: visible(v.raw) if isinstance(v.raw, str) else v.raw for v in results}
    out_by_h, taken = {}, multiverse.labels(named)
    for h in named:
        drawn = drawn_from(values, h)
        if not 0 < len(drawn["specifications"]) <= MOST_UNIVERSES:
            continue
        name, alt = f"multiverse-{taken[h]}", describe_curve(**drawn)
        save_svg(specification_curve(**drawn), out / "figures" / f"{name}.svg", alt)
        out_by_h[h] = (
            f"![{text(h)}: the estimate in every universe, in ascending order; below, its outcome and its "
            f"choices. A star marks what was registered.](figures/{name}.svg)"
            f'{{#fig-{name} fig-alt="{text(alt)}" width=6.5in}}'
        )
    return out_by_h


def _scale(results: Results, h: str) -> str:
    """Return the scale of a claim from the words of its SESOI, as in ``.036 to .131 (variance share)``."""
    value = results.get(f"{h}.sesoi")
    found = re.search(r"\(([^()]+)\)$", value.formatted if value else "")
    return found[1] if found else ""


def overviews(results: Results, out: Path) -> str:
    """Draw the overview figures that the results hold values for (``overview.<metric>.<model>.<n>``)."""
    from dynstat.plotting.style import save_svg
    from dynstat.plotting.trajectories import (
        describe_profile,
        describe_ratio_norm,
        layer_profile,
        ratio_norm_by_model,
    )

    blocks = []
    runs: dict[str, list[float]] = {}
    for v in results.under("overview.ratio_norm"):
        runs.setdefault(str(v.groups.get("model", "")), []).append(
            math.nan if v.raw is None else float(v.raw)
        )
    if runs:
        alt = describe_ratio_norm(runs)
        save_svg(ratio_norm_by_model(runs), out / "figures" / "ratio-norm.svg", alt)
        blocks.append(
            "![ratio_norm of every run, by model, on a log scale; bar and number are the median.]"
            f'(figures/ratio-norm.svg){{#fig-ratio-norm fig-alt="{text(alt)}" width=6.5in}}'
        )
    profiles: dict[str, tuple[list[float], list[float]]] = {}
    for v in results.under("overview.entropy"):
        depth, value = profiles.setdefault(str(v.groups.get("model", "")), ([], []))
        depth.append(float(v.groups["depth"]))
        value.append(math.nan if v.raw is None else float(v.raw))
    if profiles:
        alt = describe_profile(profiles)
        save_svg(layer_profile(profiles), out / "figures" / "entropy-profile.svg", alt)
        blocks.append(
            "![Mean entropy of the next-token distribution over relative depth, by model.]"
            f'(figures/entropy-profile.svg){{#fig-entropy-profile fig-alt="{text(alt)}" width=6.5in}}'
        )
    return "\n\n".join(blocks)


def share_analyses(results: Results) -> list[str]:
    """Return the ids of analyses that hold variance shares; exploratory ones only in an exploratory run."""
    rows = (e for e in results.estimates if e.key.startswith("share."))
    return list(dict.fromkeys(e.analysis for e in rows if results.exploratory or e.purpose != "exploratory"))


def by_key(results: Results, analysis: str) -> dict[str, EstimateRow]:
    """Return the estimates of an analysis by their key."""
    return {e.key: e for e in results.estimates if e.analysis == analysis}


def chance(estimates: dict[str, EstimateRow], term: str) -> tuple[EstimateRow, str] | None:
    """Return where a term's chance level stands: an estimate of its own, or a diagnostic of the share."""
    for key in (f"chance.{term}", f"chance.share.{term}"):
        if key in estimates and "value" in estimates[key].fields:
            return estimates[key], "value"
    share = estimates.get(f"share.{term}")
    for field in ("diagnostics.chance_mean", "diagnostics.chance"):
        if share and field in share.fields:
            return share, field
    return None


def _rows(results: Results, analysis: str) -> list[ShareRow]:
    from dynstat.plotting.shares import ShareRow

    estimates = by_key(results, analysis)
    rows = []
    for key, panel in estimates.items():
        if not key.startswith("share."):
            continue
        term = key[len("share.") :]
        population = estimates.get(f"population.{key}")
        at = chance(estimates, term)
        claim = _claim(results, analysis, key)
        rows.append(
            ShareRow(
                term=term,
                panel=_triple(panel),
                population=_triple(population) if population else None,
                chance=at[0].number(at[1]) if at else None,
                claimed=claimed_range(results, claim) if claim else None,
                decision=results.decision(claim) if claim else "",
                hypothesis=claim,
            )
        )
    return rows


def _triple(row: EstimateRow) -> tuple[float, float, float] | None:
    value, low, high = (row.number(k) for k in ("value", "low", "high"))
    if value is None:
        return None
    return value, math.nan if low is None else low, math.nan if high is None else high


def _claim(results: Results, analysis: str, quantity: str) -> str:
    for h in results.hypotheses:
        value = results.get(f"{h}.quantity")
        if value is not None and value.raw == quantity and value.analysis in ("", analysis):
            return h
    return ""


def claimed_range(results: Results, h: str) -> tuple[float, float] | None:
    """Return the registered range of an in_range claim, or None."""
    low, high = results.number(f"{h}.range.low"), results.number(f"{h}.range.high")
    if low is not None and high is not None:
        return low, high
    rule = results.get(f"{h}.rule")
    found = re.match(r"in range\b.*?\bbetween (-?[\d.]+) and (-?\d*\.?\d+)", rule.formatted if rule else "")
    return (float(found[1]), float(found[2])) if found else None
