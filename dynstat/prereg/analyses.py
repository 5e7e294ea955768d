"""The analyses of a plan, held against the registries: methods, options, outcomes, contingencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import DynstatError
from ..mixed.formula import parse_formula
from ..registry import METHODS, METRICS, Method
from .checker import Checker, Pointer, did_you_mean

#: When a planned contingency is used, and what it may do.
WHEN = ("singular", "not_converged", "failed")
DO = ("drop_term", "use_options", "accept")
_FORMULA = "formula"
# Quantities of one term of a formula: they exist where the term does.
_OF_TERM = ("share.", "population.share.", "eta2.", "omega2.")


def expand_analysis(c: Checker, value: Any, at: Pointer, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check an analysis against the registries and write its defaults out.

    ``on_failure`` and ``expected_se`` stand in what is returned only where they are given, so that plans
    without them keep their hash.
    """
    spec = c.mapping(
        value, at, ("method", "seed"), ("outcome", "options", "on_failure", "expected_se", *extra)
    )
    out: dict[str, Any] = {
        "method": "",
        "outcome": None,
        "options": {},
        "seed": c.integer(spec.get("seed"), (*at, "seed"), 0),
    }
    name = c.text(spec.get("method"), (*at, "method"))
    options = c.mapping(spec.get("options", {}), (*at, "options"), free=True) if spec.get("options") else {}
    method: Method | None = None
    try:
        if name and "@" not in name:
            c.problem((*at, "method"), f"name the version: {METHODS.get(name).id}")
        elif name:
            method = METHODS.get(name)
            out["method"] = method.id
            out["options"] = plain(method.fill(valid_options(c, method, options, (*at, "options"))))
    except DynstatError as e:
        c.take(e, (*at, "method"))
    if spec.get("outcome") is not None:
        out["outcome"] = expand_outcome(c, spec["outcome"], (*at, "outcome"))
    if method is not None:
        for problem in method.owed(options, spec.get("outcome")):
            c.problem(at, problem)
        _check_formula(c, out["options"], (*at, "options"))
        if spec.get("on_failure") is not None:
            out["on_failure"] = [
                _contingency(c, v, (*at, "on_failure", i), method, out["options"])
                for i, v in enumerate(c.sequence(spec["on_failure"], (*at, "on_failure"), 1))
            ]
            _check_order(c, out["on_failure"], (*at, "on_failure"))
        if spec.get("expected_se") is not None:
            out["expected_se"] = _expected_se(c, spec["expected_se"], (*at, "expected_se"), method)
    for key in extra:
        out[key] = c.text(spec.get(key, ""), (*at, key), empty=True)
    return out


def valid_options(c: Checker, method: Method, given: Mapping[str, Any], at: Pointer) -> dict[str, Any]:
    """Return those options that a method accepts, and note the others."""
    valid = {}
    for key, option in given.items():
        try:
            method.fill({key: option})
            valid[key] = option
        except DynstatError as e:
            c.take(e, (*at, key))
    return valid


def expand_outcome(c: Checker, value: Any, at: Pointer) -> dict[str, Any]:
    """Check the metric of an outcome and write its options out."""
    given = dict(c.mapping(value, at, free=True))
    name = c.text(given.pop("metric", None), (*at, "metric"))
    try:
        if name and "@" not in name:
            c.problem((*at, "metric"), f"name the version: {METRICS.get(name).id}")
            return {}
        entry = METRICS.get(name)
    except DynstatError as e:
        c.take(e, (*at, "metric"))
        return {}
    valid = {}
    for key, option in given.items():
        try:
            entry.fill({key: option})
            valid[key] = option
        except DynstatError as e:
            c.take(e, (*at, key))
    return {"metric": entry.id, **plain(entry.fill(valid))}


def terms_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the random terms of an analysis by label (``category:prompt``), in the order of its formula.

    Empty where the method has no formula, or one that cannot be read.
    """
    try:
        return (
            tuple(t.label for t in parse_formula(options[_FORMULA]).random) if options.get(_FORMULA) else ()
        )
    except DynstatError:
        return ()


def check_quantity(c: Checker, quantity: str, at: Pointer, analysis: Mapping[str, Any]) -> None:
    """Note a quantity that the method of an analysis does not give, or not with this formula."""
    if not analysis["method"]:
        return
    try:
        known = METHODS.get(analysis["method"]).quantities
    except DynstatError:
        return
    if known and quantity not in known:
        c.problem(at, f"{analysis['method']} gives no {quantity!r}{did_you_mean(quantity, known)}")
        return
    prefix = next((p for p in _OF_TERM if quantity.startswith(p)), None)
    terms = terms_of(analysis["options"])
    if prefix and terms and quantity.removeprefix(prefix) not in (*terms, "residual"):
        c.problem(at, f"the formula has no term {quantity.removeprefix(prefix)!r}; it has {', '.join(terms)}")


def named_metrics(plan: Mapping[str, Any]) -> list[str]:
    """Return the ids of all metrics that an expanded plan names, in outcomes and inside options, sorted.

    Examples
    --------
    >>> spec = {"outcome": {"metric": "ct@1"}, "options": {"also": [{"metric": "entropy@1"}]}}
    >>> named_metrics({"analyses": {"S1": spec}})
    ['ct@1', 'entropy@1']
    """
    sections = [plan.get("analyses", {}), plan.get("exploratory", {}), plan.get("robustness", {})]
    return sorted({name for section in sections for name in _metrics_in(section)})


def _metrics_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("metric"), str):
            yield value["metric"]
        # A dimension that varies the metric itself lists names, not specifications.
        if str(value.get("pointer", "")).replace("/", ".").endswith("outcome.metric"):
            yield from (v for v in value.get("options", ()) if isinstance(v, str))
        for v in value.values():
            yield from _metrics_in(v)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _metrics_in(v)


def plain(value: Any) -> Any:
    """Turn tuples into lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _check_formula(c: Checker, options: Mapping[str, Any], at: Pointer) -> None:
    if options.get(_FORMULA):
        try:
            parse_formula(options[_FORMULA])
        except DynstatError as e:
            c.problem((*at, _FORMULA), f"{e.what}{e.where} ({e.mend})")


def _contingency(
    c: Checker, value: Any, at: Pointer, method: Method, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Check one planned contingency: what is done where a fit is singular, does not converge or fails."""
    do = value.get("do") if isinstance(value, dict) else None
    owed = {"drop_term": ("term",), "use_options": ("options",)}.get(str(do), ())
    spec = c.mapping(value, at, ("when", "do", "reason", *owed))
    out: dict[str, Any] = {
        "when": c.choice(spec.get("when"), (*at, "when"), WHEN),
        "do": c.choice(do, (*at, "do"), DO),
        "reason": c.text(spec.get("reason"), (*at, "reason")),
    }
    if out["when"] == "failed" and do == "accept":
        c.problem((*at, "do"), "an analysis that failed gives nothing to accept")
    if do == "drop_term" and "term" in spec:
        term, terms = c.text(spec["term"], (*at, "term")), terms_of(options)
        label = _label(term)
        if not terms:
            c.problem((*at, "term"), f"{method.id} has no formula to drop a term from")
        elif label not in terms:
            c.problem((*at, "term"), f"the formula has no random term {term!r}{did_you_mean(label, terms)}")
        elif len(terms) == 1:
            c.problem((*at, "term"), "the formula has no other random term, so nothing would be left")
        out["term"] = label
    if do == "use_options" and "options" in spec:
        given = c.mapping(spec["options"], (*at, "options"), free=True)
        # Only what changes: the other options stay as registered.
        valid = valid_options(c, method, given, (*at, "options"))
        filled = plain(method.fill(valid))
        out["options"] = {k: filled[k] for k in valid}
        _check_formula(c, out["options"], (*at, "options"))
        if valid and all(options.get(k) == v for k, v in out["options"].items()):
            c.problem((*at, "options"), "these are the registered options: nothing would change")
    return out


def _label(term: str) -> str:
    """Return the label of a term that may be written as in the formula, ``(1|a:b)``."""
    if "|" not in term:
        return term.replace(" ", "")
    try:
        return parse_formula(f"y ~ 1 + {term}").random[0].label
    except DynstatError:
        return term


def _check_order(c: Checker, entries: list[dict[str, Any]], at: Pointer) -> None:
    """Note contingencies that can never be reached: repeated ones, and those after `accept`."""
    accepted: set[str] = set()
    seen: list[dict[str, Any]] = []
    for i, entry in enumerate(entries):
        action = {k: v for k, v in entry.items() if k != "reason"}
        if entry["when"] in accepted:
            c.problem((*at, i), f"never reached: `accept` stands before it for {entry['when']}")
        elif action in seen:
            c.problem((*at, i), "stands twice")
        seen.append(action)
        if entry["do"] == "accept":
            accepted.add(entry["when"])


def _expected_se(c: Checker, value: Any, at: Pointer, method: Method) -> dict[str, Any]:
    spec = c.mapping(value, at, free=True)
    out: dict[str, Any] = {}
    for key, number in spec.items():
        if key == "made":
            continue
        if method.quantities and key not in method.quantities:
            c.problem((*at, key), f"{method.id} gives no {key!r}{did_you_mean(key, method.quantities)}")
        out[key] = c.number(number, (*at, key), 0, open_ends=True)
    if spec and not out:
        c.problem(at, "no quantity is named")
    if "made" not in spec:
        c.problem(at, "missing key 'made': how the numbers were come by")
    return out | {"made": c.text(spec.get("made", "-"), (*at, "made"))}
