"""Estimates of a room under the names that plans and reports know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .estimate import Estimate


def for_plan(
    e: Estimate, key: str, method: str, null: str = "", counts: Mapping[str, str] | None = None
) -> Estimate:
    """Return an estimate as a registered method gives it.

    Parameters
    ----------
    e : Estimate
    key : str
        The quantity.
    method : str
        Id of the registered method.
    null : str
        What a plan writes under ``beyond_null``; the null's own words move to its ``what``.
    counts : mapping of str to str, optional
        Names of counts by the ones they have; ``units`` become what they are ("prompts").

    Returns
    -------
    Estimate
        Names of counts, diagnostics and of what is told of the null hold letters, digits and underscores.
    """
    names = {**({} if e.unit == "replicate" else {"units": f"{e.unit}s"}), **(counts or {})}
    beside = e.null
    if e.null and null:
        beside = {**e.null, "name": null, "what": e.null.get("name", "")}
    return replace(
        e,
        key=key,
        method=method,
        n={_word(names.get(k, k)): v for k, v in e.n.items()},
        diagnostics=_words(e.diagnostics),
        null=None if beside is None else _words(beside),
    )


def _words(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_word(k): v for k, v in values.items()}


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")
