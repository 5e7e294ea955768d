"""Run one analysis as its plan says, and what the plan says for the case that its model does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import DynstatError, DynstatWarning
from ..registry import METHODS

if TYPE_CHECKING:
    import xarray as xr

    from ..inference.estimate import Estimate


@dataclass(frozen=True)
class Contingency:
    """A planned contingency that was used; it is part of the plan and no deviation.

    Attributes
    ----------
    when : {"singular", "not_converged", "failed"}
    do : {"drop_term", "use_options", "accept"}
    changed : mapping
        The options that were put in place, by name; empty for ``accept``.
    reason : str
        From the plan.
    found : str
        What called for it, in words.
    """

    when: str
    do: str
    changed: Mapping[str, Any]
    reason: str
    found: str


@dataclass(frozen=True)
class Analysed:
    """What an analysis gave.

    Attributes
    ----------
    estimates : mapping of str to Estimate
        Empty where it failed.
    warnings : tuple of str
    contingencies : tuple of Contingency
        In the order of use.
    options : mapping
        Those of the last fit.
    failed : str
        Code and words of the error; "" where there is none.
    """

    estimates: Mapping[str, Estimate]
    warnings: tuple[str, ...] = ()
    contingencies: tuple[Contingency, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    failed: str = ""


def analyse(spec: Mapping[str, Any], ds: xr.Dataset) -> Analysed:
    """Run an analysis of an expanded plan; use its contingencies in their order, each at most once.

    A fit is *singular* where an estimate's diagnostics say ``singular: true``, *not converged* where they say
    ``converged: false``, and *failed* where the method raises a :class:`DynstatError`. Without a contingency
    for it nothing is put in place: a failure is recorded, the others are told by the method's warnings.

    Parameters
    ----------
    spec : mapping
        ``method``, ``outcome``, ``options``, ``seed``, and at need ``on_failure``.
    ds : xarray.Dataset
        After exclusions.
    """
    method = METHODS.get(spec["method"])
    options = dict(spec["options"])
    planned = list(spec.get("on_failure", ()))
    used: list[Contingency] = []
    while True:
        estimates, told, failed = _fit(method.resolve(), spec, options, ds)
        rule = next((r for r in planned if r["when"] in _states(estimates, failed)), None)
        if rule is None:
            return Analysed(estimates, tuple(told), tuple(used), options, failed)
        planned.remove(rule)
        found = failed or f"{method.id} gave a fit that is {rule['when'].replace('_', ' ')}"
        try:
            changed = _changes(rule, options)
            options = method.fill({**options, **changed})
        except DynstatError as e:
            return Analysed({}, tuple(told), tuple(used), options, f"{e.code} {e.what}")
        used.append(Contingency(rule["when"], rule["do"], changed, str(rule.get("reason", "")), found))
        if rule["do"] == "accept":
            return Analysed(estimates, tuple(told), tuple(used), options, failed)


def _fit(
    function: Any, spec: Mapping[str, Any], options: Mapping[str, Any], ds: xr.Dataset
) -> tuple[dict[str, Estimate], list[str], str]:
    """Return the estimates, what the method warned of (it belongs into the results), and how it failed."""
    outcome = dict(spec["outcome"]) if spec["outcome"] else None
    estimates: dict[str, Estimate] = {}
    failed = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DynstatWarning)
        try:
            estimates = dict(function(ds, outcome=outcome, seed=int(spec["seed"]), **options))
        except DynstatError as e:
            failed = f"{e.code} {e.what}"
    for w in caught:
        if not issubclass(w.category, DynstatWarning):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    return estimates, [str(w.message) for w in caught if issubclass(w.category, DynstatWarning)], failed


def _states(estimates: Mapping[str, Estimate], failed: str) -> set[str]:
    told = [e.diagnostics for e in estimates.values()]
    states = {"failed"} if failed else set()
    if any(d.get("singular") is not None and bool(d["singular"]) for d in told):
        states.add("singular")
    if any(d.get("converged") is not None and not bool(d["converged"]) for d in told):
        states.add("not_converged")
    return states


def _changes(rule: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a rule puts in place of those of the fit."""
    if rule["do"] == "use_options":
        return dict(rule["options"])
    if rule["do"] == "accept":
        return {}
    from ..mixed.formula import parse_formula

    formula = parse_formula(str(options.get("formula", "")))
    wanted = str(rule["term"])
    term = next((t for t in formula.random if wanted in (t.name, t.label)), None)
    if term is None:
        raise DynstatError(
            "S404",
            f"the formula has no random term {wanted!r} to be dropped",
            where=str(options.get("formula", "")),
            expected=", ".join(t.label for t in formula.random),
        )
    # By label, so that quantities keep the names that the plan knows: share.category:prompt, from outside in.
    kept = [f"({t.columns} | {t.label})" for t in formula.random if t != term]
    return {"formula": " + ".join([f"{formula.response} ~ {formula.fixed or '1'}", *kept])}
