"""Structure of a panel of models as methods of a plan: from a dataset and an outcome to estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import DynstatError
from ..inference.estimate import BetaPivot, Estimate, TPivot
from ..inference.plan_estimates import for_plan
from .concordance import adjusted_rand
from .fragments import fragmentation
from .influence import anomaly_test
from .largest_gap import LargestGap, largest_gap_test
from .pairs import PairSurvival, pair_survival
from .plan_features import Spec, cut, cut_again, in_words, label_of_models, plan_units
from .stability_null import stability_test

AGREEMENT = "structure.agreement@1"
PAIRS = "structure.pairs@1"
LARGEST_GAP = "structure.largest_gap@1"
STABILITY = "structure.stability@1"
ANOMALY = "structure.anomaly@1"
# Names of the nulls: what a plan writes under beyond_null.
DEALT, STRUCTURELESS, EVERY = "permutation", "structureless", "every population"
EXCHANGEABLE = "exchangeable models"


def agreement(
    ds: xr.Dataset,
    *,
    outcome: Spec | None,
    seed: int,
    linkage: str,
    k: int,
    families: str,
    against: Spec,
    replicates: int,
    null_sets: int,
    level: float,
    **features: Any,
) -> dict[str, Estimate]:
    """Compare a partition of the models with their families, or with the partition of another metric.

    Units are drawn anew, both partitions made from metrics are made again, and the ARI is taken of each draw.

    Parameters
    ----------
    ds : xarray.Dataset
        At least three models, two units.
    outcome : mapping
        The metric and its options; `also` adds further ones.
    seed : int
    linkage, k, families, against, replicates, null_sets, level, **features
        As the registry lists them.

    Returns
    -------
    dict of str to Estimate
        ``ari`` in [−1, 1] with the null "permutation" (every dealing of the labels);
        ``fragmentation.<index>`` in [0, 1], without an interval, with the null "structureless".

    Raises
    ------
    DynstatError
        Y002 without an outcome, or where not just one of `families` and `against` is given; S404 a coordinate
        that models do not have; S403, S405 too few models or units.
    """
    if bool(families) == bool(against):
        raise DynstatError(
            "Y002",
            f"{AGREEMENT} compares with one thing",
            where=AGREEMENT,
            found="both" if families else "neither",
            expected="families: COORDINATE, or against: {metric: ...}",
        )
    units = plan_units(ds, outcome, AGREEMENT, **features)
    first = cut(units, linkage, k)
    weights = units.resampler().weights(replicates, seed)
    drawn, whole = cut_again(first, units, weights)
    made: dict[str, Any] = {"draws": drawn, "draws_b": None}
    other: Any
    if families:
        other = label_of_models(ds, families)
    else:
        units_b = plan_units(ds, against, AGREEMENT, **{**features, "also": []})
        other = cut(units_b, linkage, k)
        drawn_b, whole_b = cut_again(other, units_b, weights)
        whole = whole & whole_b
        made = {"draws": drawn, "draws_b": drawn_b[whole]}
    made["draws"] = drawn[whole]
    e = adjusted_rand(first, other, units=len(units.units), unit=units.unit, rng=seed, level=level, **made)
    notes = {"partition": in_words(first), "against": families or in_words(other)}
    e = replace(e, seed=seed, diagnostics={**e.diagnostics, **notes, "left_out": int((~whole).sum())})
    out = {"ari": for_plan(e, "ari", AGREEMENT, DEALT)}
    data = units.features() if null_sets else None
    beside = fragmentation(first, data=data, null_sets=max(null_sets, 19), rng=seed).estimates()
    for name, index in beside.items():
        out[f"fragmentation.{name}"] = for_plan(index, f"fragmentation.{name}", AGREEMENT, STRUCTURELESS)
    return out


def pairs(
    ds: xr.Dataset,
    *,
    outcome: Spec | None,
    seed: int,
    pairs: Sequence[Sequence[str]],
    k: int,
    linkage: str,
    null_sets: int,
    level: float,
    **options: Any,
) -> dict[str, Estimate]:
    """Ask whether exactly the named pairs of models survive.

    A pair survives where it lies in one cluster in at least `frequency` of the replicates and its q is at
    most `q`. "Exactly the named pairs" is ``all`` of two rules of threshold at `frequency`:
    ``named.frequency`` greater, beyond the null "structureless"; ``others.frequency`` less.

    Parameters
    ----------
    ds, outcome, seed
        As in :func:`agreement`.
    pairs : sequence of pairs of str
        Ids of models.
    k, linkage, null_sets, level, **options
        As the registry lists them.

    Returns
    -------
    dict of str to Estimate
        ``named.frequency``: the lowest frequency of a named pair; the p of its null is the largest among the
        named, 1 where one of them has a q above the option's. ``others.frequency``: the highest among the
        other pairs whose q is at most the option's, 0 where there is none. Both in [0, 1], with the
        Monte-Carlo error of the replicates as interval. ``surviving_pairs``: their number, no interval.
        ``together.<a>+<b>`` of each pair named or surviving, and of the most frequent others.

    Raises
    ------
    DynstatError
        Y002 without an outcome or pairs; S407 a model that is not there; what
        :func:`dynstat.cluster.pair_survival` raises.
    """
    if not pairs:
        raise DynstatError(
            "Y002", f"{PAIRS} needs the pairs of the claim", where=PAIRS, expected="pairs: [[A, B]]"
        )
    own = ("frequency", "q", "replicates", "null_replicates", "null")
    found = pair_survival(
        plan_units(ds, outcome, PAIRS, **{name: v for name, v in options.items() if name not in own}),
        k=k,
        method=linkage,
        null_sets=null_sets or None,
        level=level,
        rng=seed,
        **{name: options[name] for name in own},
    )
    found.exactly(pairs)  # refuses what is no pair of these models
    table = found.table
    wanted = {frozenset(p) for p in pairs}
    named = np.array([frozenset(p) in wanted for p in zip(table["item_1"], table["item_2"], strict=True)])
    fine = (table["q"] <= options["q"]).to_numpy()
    out: dict[str, Estimate] = {}
    lowest = table[named].iloc[-1]
    p = float(table["p"][named].max()) if fine[named].all() else 1.0
    null = {
        "name": STRUCTURELESS,
        "p": p,
        "replicates": found.n["null_sets"],
        "q": float(table["q"][named].max()),
    }
    out["named.frequency"] = _share("named.frequency", lowest, found, null)
    rest = table[~named & fine]
    top = rest.iloc[0] if len(rest) else None
    out["others.frequency"] = _share("others.frequency", top, found, None)
    made = found.estimates()
    out["surviving_pairs"] = for_plan(made.pop("surviving_pairs"), "surviving_pairs", PAIRS)
    shown = named | table["survives"].to_numpy()
    shown |= np.cumsum(~shown) <= 3
    for row in table[shown].to_dict("records"):
        key = f"together.{row['item_1']}+{row['item_2']}"
        out[key] = for_plan(made[f"together.{row['item_1']}|{row['item_2']}"], key, PAIRS, STRUCTURELESS)
    return out


def largest_gap(
    ds: xr.Dataset,
    *,
    outcome: Spec | None,
    seed: int,
    log: bool,
    cell: str,
    unit: str,
    strata: str,
    **options: Any,
) -> dict[str, Estimate]:
    """Measure the gap between two groups of models on one metric, and hold it against one population.

    Parameters
    ----------
    ds : xarray.Dataset
        At least three models, or recipes where `cell` names them.
    outcome : mapping
        The metric; its mean over units is a model's value, before logs.
    seed : int
    log, cell, unit, strata, **options
        As the registry lists them.

    Returns
    -------
    dict of str to Estimate
        ``gap_factor`` (``gap`` without logs), at least 1: its null "every population" has the largest p of
        all four. ``gap_factor.<population>``: the same beside the null "<population> population".
        ``gap_factor.left_out``, also by population: the worst case with one cell left out, p likewise.

    Raises
    ------
    DynstatError
        Y002 without an outcome, or unit "model" without cell; S404 values that have no logs, a coordinate
        that models do not have; S403 fewer than three cells; S405 all equal.
    """
    if unit == "model" and not cell:
        raise DynstatError(
            "Y002", f"{LARGEST_GAP} by model needs cell, whose seeds are replicates", where=LARGEST_GAP
        )
    inside = "prompt" if unit == "model" else unit
    units = plan_units(ds, outcome, LARGEST_GAP, unit=inside, strata=strata, standardize=False)
    values: Any = units
    if unit == "model":
        f = units.features()
        values = pd.Series(f.values[:, 0], list(f.items))
    found = largest_gap_test(
        values, log=log, cell=label_of_models(ds, cell) if cell else None, rng=seed, item="model", **options
    )
    made = found.estimates()
    key = "gap_factor" if log else "gap"
    out: dict[str, Estimate] = {}
    for name in (key, f"{key}.left_out"):
        e = made[name]
        if name != key and "groups change without" in e.diagnostics:
            e = _open_limits(e, log)
        nulls = _population_nulls(found, made, left_out=name != key)
        for suffix, null in {"": max(nulls.values(), key=lambda n: n["p"]), **nulls}.items():
            # The whole is judged by the population that makes such gaps most often.
            label = f"{suffix} population" if suffix else EVERY
            full = f"{name}.{suffix}" if suffix else name
            beside = {**null, "name": label} | ({} if suffix else {"largest_under": null["name"]})
            out[full] = replace(for_plan(e, full, LARGEST_GAP), null=beside, seed=seed)
    return out


def stability(
    ds: xr.Dataset,
    *,
    outcome: Spec | None,
    seed: int,
    linkage: str,
    k: int,
    statistic: str,
    replicates: int,
    null: str,
    null_sets: int,
    level: float,
    **features: Any,
) -> dict[str, Estimate]:
    """Ask whether clusters of models are more stable than those of structureless data.

    Parameters
    ----------
    ds : xarray.Dataset
        At least four models.
    outcome, seed
        As in :func:`agreement`.
    linkage, k, statistic, replicates, null, null_sets, level, **features
        As the registry lists them.

    Returns
    -------
    dict of str to Estimate
        ``stability``: mean (or least, or largest) Jaccard of the clusters when models are drawn anew, [0, 1],
        with the null "structureless"; its interval is the Monte-Carlo error of the replicates.
        ``jaccard.<cluster>`` of every cluster, likewise.

    Raises
    ------
    DynstatError
        Y002 without an outcome; what :func:`dynstat.cluster.stability_test` raises.
    """
    units = plan_units(ds, outcome, STABILITY, **features)
    found = stability_test(
        units.features(),
        cut(units, linkage, k),
        null=null,
        statistic=statistic,
        null_sets=null_sets,
        replicates=replicates or None,
        level=level,
        rng=seed,
    )
    made = found.estimates()
    whole = made.pop(f"stability.{statistic}")
    notes = {**whole.diagnostics, "statistic": statistic}
    out = {"stability": replace(for_plan(whole, "stability", STABILITY, STRUCTURELESS), diagnostics=notes)}
    for key, e in made.items():
        members = ", ".join(found.partition.members(int(key.removeprefix("jaccard."))))
        e = for_plan(e, key, STABILITY, STRUCTURELESS)
        out[key] = replace(e, diagnostics={**e.diagnostics, "models": members})
    return out


def anomaly(
    ds: xr.Dataset,
    *,
    outcome: Spec | None,
    seed: int,
    permutations: int,
    level: float,
    **features: Any,
) -> dict[str, Estimate]:
    """Ask whether one model lies farther from the others than exchangeable models do.

    Parameters
    ----------
    ds : xarray.Dataset
        At least three models and three units.
    outcome, seed
        As in :func:`agreement`.
    permutations, level, **features
        As the registry lists them.

    Returns
    -------
    dict of str to Estimate
        ``anomaly``: the largest distance less the 95 % quantile of the largest among exchangeable models, in
        units of the features; null "exchangeable models"; the model stands in the diagnostics.

    Raises
    ------
    DynstatError
        Y002 without an outcome; what :func:`dynstat.cluster.anomaly_test` raises.
    """
    units = plan_units(ds, outcome, ANOMALY, **features)
    e = anomaly_test(units, permutations=permutations, level=level, rng=seed).estimate
    return {"anomaly": for_plan(e, "anomaly", ANOMALY, EXCHANGEABLE)}


def _share(key: str, row: Any, found: PairSurvival, null: Mapping[str, Any] | None) -> Estimate:
    """Return a share of the replicates with its Monte-Carlo error."""
    b = found.n["replicates"]
    value = 0.0 if row is None else float(row["frequency"])
    hits = round(value * b)
    closed: Any = "lower" if hits == 0 else "upper" if hits == b else ""
    pair = "none with so small a q" if row is None else f"{row['item_1']} and {row['item_2']}"
    e = Estimate.from_pivot(
        key,
        value,
        BetaPivot(hits + 0.5, b - hits + 0.5, closed),
        level=found.level,
        method=PAIRS,
        interval="Jeffreys, Monte-Carlo error of the share of replicates",
        unit=found.unit,
        n=found.n,
        target="panel",
        seed=found.seed,
        diagnostics={
            "pair": pair,
            "thresholds": f"frequency {found.thresholds[0]:g}, q {found.thresholds[1]:g}",
        },
        null=null,
    )
    return for_plan(e, key, PAIRS)


def _population_nulls(
    found: LargestGap, made: Mapping[str, Estimate], *, left_out: bool
) -> dict[str, dict[str, Any]]:
    """Return the null of every population; `left_out` takes the largest p with one cell left out."""
    out = {}
    for name in found.populations["population"]:
        e = made[f"gap_share.{name}"]
        null = dict(e.null or {})
        if left_out:
            null = {
                "name": null["name"],
                "p": float(e.diagnostics["p.left_out"]),
                "replicates": null["replicates"],
            }
        out[str(name)] = {**null, "gap_share": e.value}
    return out


def _open_limits(e: Estimate, log: bool) -> Estimate:
    """Return a gap without limits as one of which nothing is known.

    So a claim that needs it can be inconclusive, or rejected by its other parts, and is not taken for one
    that no data of this kind could decide.
    """
    scale: Any = "log" if log else "identity"
    pivot = TPivot(0.0, np.inf, np.inf, scale)
    rest = {name: getattr(e, name) for name in ("level", "method", "interval", "unit", "n", "target", "seed")}
    return Estimate.from_pivot(e.key, e.value, pivot, diagnostics=e.diagnostics, null=e.null, **rest)
