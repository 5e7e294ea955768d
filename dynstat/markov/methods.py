"""Chains of states as methods of a plan: from a dataset to estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from ..errors import DynstatError
from ..inference.estimate import Estimate
from ..inference.methods_markov import CODES, NULLS, OF_CHAIN, OF_STATE
from ..inference.plan_estimates import for_plan
from .cycles import reopening
from .distance import transition_distance
from .enrichment import motifs
from .estimation import chain
from .sequences import Sequences
from .sojourns import dwell
from .stationarity import stationarity_test
from .visiting_order import first_visits

CHAIN = "markov.chain@1"
DISTANCE = "markov.transition_distance@1"
STATIONARITY = "markov.stationarity@1"
REOPENING = "markov.reopening@1"
MOTIFS = "markov.motifs@1"
FIRST_VISITS = "markov.first_visits@1"
# Names of the nulls: what a plan writes under beyond_null. Those of surrogates are their own.
MEMORYLESS, CONSTANT = "memoryless", "constant hazard"
EXCHANGEABLE, BLOCKS, NO_GRAMMAR = "exchangeable models", "blocks permuted", "without grammar"

_MODELS = {"groups": "models"}
# Options that say what the sequences are.
_SEQUENCE = (
    "codes",
    "turbulence",
    "branching",
    "synchronisation",
    "commitment",
    "alignment",
    "enter",
    "leave",
    "axis",
    "layer",
    "phase",
    "tokens",
    "until",
    "model",
)


def chain_of_states(
    ds: xr.Dataset,
    *,
    outcome: Mapping[str, Any] | None,
    seed: int,
    unit: str,
    interval: str,
    replicates: int,
    lag: int,
    surrogates: int,
    level: float,
    **options: Any,
) -> dict[str, Estimate]:
    """Estimate a first-order chain of states.

    Parameters
    ----------
    ds : xarray.Dataset
    outcome : None
        The states are named by options.
    seed : int
    unit, interval, replicates, lag, surrogates, level, **options
        As the registry lists them.

    Returns
    -------
    dict of str to Estimate
        By full names of states: ``self_transition``, ``occupancy``, ``exit``, ``stationary`` in [0, 1],
        ``lift`` (self-transition less occupancy), ``dwell`` (1/(1 − self-transition), steps);
        ``transition.<FROM>.<TO>``; ``spectral_gap``, ``entropy_rate`` (nats). ``stay``: mean stay by Kaplan
        and Meier, in steps, with the null "constant hazard" (units with chains of their own).

    Raises
    ------
    DynstatError
        Y002 with an outcome; S406 one state only; what :func:`dynstat.markov.chain` raises.
    """
    sequences = _sequences(ds, outcome, CHAIN, options)
    made = chain(
        sequences,
        unit=unit,
        interval=interval,  # type: ignore[arg-type]
        replicates=replicates,
        lag=lag,
        level=level,
        rng=seed,
    ).estimates()
    wanted = [f"{q}.{s}" for q in OF_STATE for s in sequences.states]
    wanted += [f"transition.{a}.{b}" for a in sequences.states for b in sequences.states]
    # What a version returns is fixed: later quantities of the chain are not among it.
    out = {key: for_plan(made[key], key, CHAIN) for key in (*wanted, *OF_CHAIN) if key in made}
    if surrogates:
        by_state = dwell(
            sequences, unit=unit, surrogates=surrogates, replicates=max(replicates, 19), level=level, rng=seed
        ).estimates()
        for s in sequences.states:
            if f"mean.{s}" in by_state:
                out[f"stay.{s}"] = for_plan(by_state[f"mean.{s}"], f"stay.{s}", CHAIN, CONSTANT)
    return out


def distance_of_models(
    ds: xr.Dataset, *, outcome: Mapping[str, Any] | None, seed: int, **options: Any
) -> dict[str, Estimate]:
    """Measure the largest distance between the transition matrices of models.

    Returns
    -------
    dict of str to Estimate
        ``largest_distance``: mean total variation of a step, noise taken off, [0, 1]; null "exchangeable
        models". ``distance.<a>+<b>`` of every pair, likewise.

    Raises
    ------
    DynstatError
        Y002 with an outcome; what :func:`dynstat.markov.transition_distance` raises.
    """
    sequences = _sequences(ds, outcome, DISTANCE, options)
    made = transition_distance(sequences, "model", rng=seed, **_rest(options)).estimates()
    keys = {key: key.replace("|", "+") for key in made}
    return {new: for_plan(made[key], new, DISTANCE, EXCHANGEABLE, _MODELS) for key, new in keys.items()}


def stationarity(
    ds: xr.Dataset, *, outcome: Mapping[str, Any] | None, seed: int, within: str, **options: Any
) -> dict[str, Estimate]:
    """Measure how far transition probabilities change along the sequences.

    Returns
    -------
    dict of str to Estimate
        ``cramers_v`` and ``total_variation``, noise taken off, [0, 1], both beside the null "blocks
        permuted"; the p of the test's own statistic (Pearson's or G) stands in their diagnostics.

    Raises
    ------
    DynstatError
        Y002 with an outcome; what :func:`dynstat.markov.stationarity_test` raises.
    """
    sequences = _sequences(ds, outcome, STATIONARITY, options)
    found = stationarity_test(sequences, within=within or None, rng=seed, **_rest(options))
    notes = {f"{found.statistic}": found.statistics[found.statistic], f"{found.statistic}_p": found.p_value}
    made = found.estimates()
    out = {}
    for key in ("cramers_v", "total_variation"):
        e = for_plan(made[key], key, STATIONARITY, BLOCKS, {"groups": "blocks"})
        out[key] = replace(e, diagnostics={**e.diagnostics, **notes})
    return out


def cycles(
    ds: xr.Dataset, *, outcome: Mapping[str, Any] | None, seed: int, by: str, **options: Any
) -> dict[str, Estimate]:
    """Estimate the probability that a stay in a state is left within h tokens.

    Returns
    -------
    dict of str to Estimate
        ``reopening`` (Aalen–Johansen), ``end_of_text``, ``kaplan_meier``, ``naive`` (share of the whole
        record) in [0, 1], and ``departure`` (less constant hazards), each beside the null "memoryless"; with
        `by`, ``<one of these>.<level>`` too.

    Raises
    ------
    DynstatError
        Y002 with an outcome; what :func:`dynstat.markov.reopening` raises.
    """
    sequences = _sequences(ds, outcome, REOPENING, options)
    made = reopening(sequences, by=by or None, rng=seed, **_rest(options)).estimates()
    return {key: for_plan(e, key, REOPENING, MEMORYLESS) for key, e in made.items()}


def conserved_motifs(
    ds: xr.Dataset,
    *,
    outcome: Mapping[str, Any] | None,
    seed: int,
    nulls: Sequence[str],
    within: str,
    **options: Any,
) -> dict[str, Estimate]:
    """Count the motifs that every model shows more often than sequences without grammar do.

    Returns
    -------
    dict of str to Estimate
        ``conserved``: motifs that pass against every null, beside the null "without grammar" (the largest p
        of the nulls); ``conserved.<null>`` beside each alone; ``enrichment.<A-B-C>`` of every conserved
        motif: the lowest over models and nulls.

    Raises
    ------
    DynstatError
        Y002 with an outcome; what :func:`dynstat.markov.motifs` raises.
    """
    sequences = _sequences(ds, outcome, MOTIFS, options)
    found = motifs(sequences, nulls=nulls, within=within or None, rng=seed, **_rest(options))
    made = found.estimates()
    notes = {"motifs": "; ".join(found.conserved) or "none"}
    whole = for_plan(made["conserved"], "conserved", MOTIFS, NO_GRAMMAR, _MODELS)
    out = {"conserved": replace(whole, diagnostics={**whole.diagnostics, **notes})}
    for null in NULLS:
        if f"conserved.{null}" in made:
            out[f"conserved.{null}"] = for_plan(
                made[f"conserved.{null}"], f"conserved.{null}", MOTIFS, null, _MODELS
            )
    for motif in found.conserved:
        each = [found.enrichment(motif, g, n) for g in found.groups for n in found.against]
        key = f"enrichment.{motif.replace(' > ', '-')}"
        low = min(each, key=lambda e: e.value)
        out[key] = replace(
            for_plan(low, key, MOTIFS, counts=_MODELS), diagnostics={**low.diagnostics, "lowest": low.key}
        )
    return out


def path(
    ds: xr.Dataset,
    *,
    outcome: Mapping[str, Any] | None,
    seed: int,
    order: Sequence[str],
    null: str,
    within: str,
    **options: Any,
) -> dict[str, Estimate]:
    """Estimate how much more often states are first met in an order than a depth trend alone makes them.

    Returns
    -------
    dict of str to Estimate
        ``path_share`` in [0, 1] and ``difference`` (share less that under the null), over all sequences,
        beside the null of the option's name; ``path_share.<model>``, ``difference.<model>``.

    Raises
    ------
    DynstatError
        Y002 with an outcome; S407 a state that the codes do not have; what
        :func:`dynstat.markov.first_visits` raises.
    """
    sequences = _sequences(ds, outcome, FIRST_VISITS, options)
    found = first_visits(sequences, order, null=null, within=within or None, rng=seed, **_rest(options))
    # Keys that begin with "share." are shares of variance to a report.
    keys = {key: key.replace("share", "path_share") for key in found.estimates()}
    made = found.estimates()
    return {new: for_plan(made[key], new, FIRST_VISITS, null, _MODELS) for key, new in keys.items()}


def _sequences(
    ds: xr.Dataset, outcome: Mapping[str, Any] | None, method: str, options: Mapping[str, Any]
) -> Sequences:
    """Return the sequences of states that the options name."""
    from ..metrics.labelled import collapse, rivalry, states
    from ..metrics.states import Thresholds

    if outcome:
        raise DynstatError(
            "Y002",
            f"{method} takes no outcome: its states are named by options",
            where=method,
            found=outcome.get("metric"),
            expected=f"options: {{codes: {' | '.join(CODES)}, ...}}",
        )
    if model := options.get("model"):
        known = [str(m) for m in ds["model"].values]
        if model not in known:
            raise DynstatError(
                "S407", f"no model is called {model!r}", found=model, expected=", ".join(known)
            )
        ds = ds.isel(model=[known.index(model)])
    kind, phase = options["codes"], options["phase"]
    if kind == "state":
        limits = [float(options[k]) for k in ("turbulence", "branching", "synchronisation", "commitment")]
        codes = states(ds, Thresholds.fixed(*limits), alignment=options["alignment"])
    else:
        make = collapse if kind == "collapse" else rivalry
        codes = make(ds, enter=float(options["enter"]), leave=float(options["leave"]), phase=phase)
    return Sequences.from_dataset(
        ds,
        codes,
        axis=options.get("axis", "token"),
        layer=options["layer"],
        phase=phase,
        tokens=options.get("tokens", "all"),
        until=options.get("until", "end_of_text"),
    )


def _rest(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k not in _SEQUENCE}
