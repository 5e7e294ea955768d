"""The multiverse of a hypothesis: its estimate and outcome under all declared analytic choices.

What comes out of a universe is called an outcome and is no decision: decisions are made by a lock, from the
registered analysis alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..inference.rules import Rule
from .multiverse_judge import judge_of
from .multiverse_rows import rows
from .multiverse_run import Failure, Found, Made, Task, judged, make_all, waiting_terms
from .multiverse_spec import Declared, Universe, universes_of
from .multiverse_spread import spread_by_choice

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from .execute import Execution
    from .multiverse_run import Progress

__all__ = ["Multiverse", "rows", "run_multiverse", "run_multiverses"]


@dataclass(frozen=True)
class Multiverse:
    """All universes of one hypothesis. Made by :func:`run_multiverse`; frozen.

    Attributes
    ----------
    hypothesis, purpose : str
        Its id and role in the plan.
    analysis, method, quantity, scale : str
        Of the estimate that is shown, that of the claim's first part; the scale as its SESOI names it.
    level : float
        Of the intervals.
    bands : tuple of (low, high)
        What the rule compares with: the range, plus and minus the SESOI, or the threshold twice.
    declared : Declared
        Dimensions and universes.
    found : mapping of universe id to Found
    table : DataFrame
        A row a universe: universe, multiverse, role, a column a dimension, estimate, low, high, outcome,
        reason_code, agrees, state, why. Missing and errored universes stand in it too.
    by_choice : DataFrame
        Share of the estimate's sum of squares a dimension, and the rest; over all crossed universes that
        gave an estimate. See :func:`dynstat.prereg.multiverse_spread.spread_by_choice`.
    """

    hypothesis: str
    purpose: str
    analysis: str
    method: str
    quantity: str
    scale: str
    level: float
    bands: tuple[tuple[float, float], ...]
    declared: Declared
    found: Mapping[str, Found]
    table: pd.DataFrame
    by_choice: pd.DataFrame

    @property
    def registered(self) -> Found:
        """What came of the registered universe."""
        return self.found[self.declared.universes[0].id]

    @property
    def share_agree(self) -> float:
        """Share, of the registered multiverse's universes that ran, whose outcome is the registered one.

        How many are missing or errored stands beside it in :attr:`multiverses`; NaN where none ran.
        """
        return float(self.multiverses["share_agree"].iloc[0])

    @property
    def multiverses(self) -> pd.DataFrame:
        """A row a multiverse, the registered one first, and one for what stands beside (number 0).

        Columns: multiverse, choices, n, run, missing, errored, agree, share_agree, supported, rejected,
        inconclusive, other, median, minimum, maximum.
        """
        uncertain = [d.name for d in self.declared.dimensions if d.type == "uncertain"]
        rows = []
        for number in [*sorted(m for m in set(self.table["multiverse"]) if m), 0]:
            part = self.table[self.table["multiverse"] == number]
            if part.empty:
                continue
            outcomes = part["outcome"].value_counts()
            decided = ("supported", "rejected", "inconclusive")
            counts = {k: int(outcomes.get(k, 0)) for k in decided}
            run = int((part["state"] == "run").sum())
            values = part["estimate"].dropna()
            first = part.iloc[0]
            rows.append(
                {
                    "multiverse": number,
                    "choices": ", ".join(f"{n} = {first[n]}" for n in uncertain) if number else "beside",
                    "n": len(part),
                    "run": run,
                    "missing": int((part["state"] == "missing").sum()),
                    "errored": int((part["state"] == "errored").sum()),
                    "agree": int(part["agrees"].sum()),
                    "share_agree": float(part["agrees"].sum() / run) if run else np.nan,
                    **counts,
                    "other": run - sum(counts.values()),
                    "median": float(values.median()) if len(values) else np.nan,
                    "minimum": float(values.min()) if len(values) else np.nan,
                    "maximum": float(values.max()) if len(values) else np.nan,
                }
            )
        return pd.DataFrame(rows)

    def tidy(self) -> pd.DataFrame:
        """Return the table: a row a universe."""
        return self.table.copy()

    def glance(self) -> pd.DataFrame:
        """Return one row: the registered multiverse's counts, the registered outcome and estimate."""
        first = self.multiverses.drop(columns="choices").iloc[[0]].reset_index(drop=True)
        own = self.table.iloc[0]
        return first.assign(
            hypothesis=self.hypothesis,
            quantity=self.quantity,
            outcome=own["outcome"],
            estimate=own["estimate"],
            universes=len(self.table),
            possible=self.declared.possible,
            left_out=len(self.declared.left_out),
        )

    def plot(self) -> Figure:
        """Draw the specification curve; `describe` gives its alt text."""
        from ..plotting.specification_curve import specification_curve

        return specification_curve(**self._drawn())

    def describe(self) -> str:
        """Return the alt text of :meth:`plot`: what it shows, in words and numbers."""
        from ..plotting.specification_curve import describe_curve

        return describe_curve(**self._drawn())

    def _drawn(self) -> dict[str, Any]:
        from ..plotting.specification_curve import Choice, Specification

        names = [d.name for d in self.declared.dimensions]
        titles = dict(zip(self.multiverses["multiverse"], self.multiverses["choices"], strict=True))
        return {
            "specifications": [
                Specification(
                    tuple(str(row[n]) for n in names),
                    row["estimate"],
                    row["low"],
                    row["high"],
                    row["outcome"] if row["state"] == "run" else row["state"],
                    row["role"] == "registered",
                    titles[row["multiverse"]],
                )
                for row in self.table.to_dict("records")
            ],
            "choices": [Choice(d.name, d.labels, d.type) for d in self.declared.dimensions],
            "quantity": self.quantity,
            "level": self.level,
            "bands": list(self.bands),
        }

    def __str__(self) -> str:
        own = self.table.iloc[0]
        kinds = {"equivalent": "E", "uncertain": "U", "non_equivalent": "N"}
        lines = [
            f"Multiverse of {self.hypothesis} ({self.quantity}, {100 * self.level:g} % intervals)",
            f"Registered: {own['outcome'] or own['state']}, {own['estimate']:.4g} "
            f"[{own['low']:.4g}, {own['high']:.4g}]",
            "Dimensions: "
            + "; ".join(
                f"{d.name} ({kinds[d.type]}): {', '.join(d.labels)}" for d in self.declared.dimensions
            ),
            "",
            self.multiverses.to_string(index=False, float_format=lambda v: f"{v:.3f}", na_rep=""),
            "",
            "Share of the estimate's sum of squares by choice",
            self.by_choice.to_string(index=False, float_format=lambda v: f"{v:.3g}", na_rep=""),
        ]
        if self.declared.left_out:
            lines.append(f"{len(self.declared.left_out)} combinations left out by declared constraints")
        if len(self.table) < self.declared.possible:
            lines.append(f"a declared sample of {len(self.table)} of {self.declared.possible} universes")
        lost = self.table[self.table["state"] != "run"]
        lines += [f"{r['universe']} {r['state']}: {r['why']}" for r in lost.to_dict("records")]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def run_multiverse(
    plan: Mapping[str, Any],
    hypothesis: str,
    ds: xr.Dataset,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
    registered: Execution | None = None,
    folder: Path | None = None,
) -> Multiverse:
    """Run all universes that a plan declares for a hypothesis.

    Parameters
    ----------
    plan : mapping
        The expanded content of a plan, from a lock where there is one, with ``robustness``.
    hypothesis : str
        One that ``robustness`` names.
    ds : xarray.Dataset
        Before exclusions: they belong to the plan, and a universe may change them.
    jobs : int
        Processes. Results do not depend on it.
    progress : callable, optional
        ``progress(done, total, what)``.
    registered : Execution, optional
        What the registered plan gave on these data; computed here as far as needed where not given.
    folder : path, optional
        Of the study, whose methods other processes must register too.

    Returns
    -------
    Multiverse

    Raises
    ------
    DynstatError
        P301 for a declaration that does not hold; D103 where the dataset has no quality. What goes wrong
        inside a universe is recorded there.
    """
    return run_multiverses(
        plan, ds, [hypothesis], jobs=jobs, progress=progress, registered=registered, folder=folder
    )[hypothesis]


def run_multiverses(
    plan: Mapping[str, Any],
    ds: xr.Dataset,
    hypotheses: list[str] | None = None,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
    registered: Execution | None = None,
    folder: Path | None = None,
) -> dict[str, Multiverse]:
    """Run the multiverses of several hypotheses (by default all declared), sharing what they have in common.

    Parameters and errors as :func:`run_multiverse`.
    """
    names = list(plan.get("robustness", {})) if hypotheses is None else hypotheses
    declared = {h: universes_of(plan, h) for h in names}
    needed: dict[str, set[str]] = {}
    for h in names:
        for part in plan["hypotheses"][h]["parts"]:
            needed.setdefault(part["estimand"]["analysis"], set()).add(part["estimand"]["quantity"])
    tasks: dict[tuple[str, str], dict[str, Task]] = {}
    for h in names:
        for u in declared[h].universes:
            tasks[h, u.id] = _tasks(plan, h, u, declared[h], needed)
    own = {t.key: t.analysis for h in names for t in tasks[h, "u1"].values()}
    given = {} if registered is None else {key: _as_made(registered, a) for key, a in own.items()}
    every = {t.key: t for per in tasks.values() for t in per.values() if t.key not in given}
    made = given | make_all(every.values(), plan, ds, jobs=jobs, folder=folder, progress=progress)
    out = {}
    for h in names:
        universes = declared[h].universes
        of = {u.id: {a: made[t.key] for a, t in tasks[h, u.id].items()} for u in universes}
        judge = judge_of(plan, h, ds, registered)
        found = {u.id: judged(plan, u, h, of[u.id], judge) for u in universes}
        out[h] = _multiverse(plan, h, declared[h], found)
    return out


def _as_made(run: Execution, analysis: str) -> Made:
    failed = run.failed.get(analysis)
    result = Failure("errored", failed) if failed else dict(run.estimates.get(analysis, {}))
    return Made(dict(run.states), result)


def _tasks(
    plan: Mapping[str, Any], h: str, universe: Universe, declared: Declared, needed: Mapping[str, set[str]]
) -> dict[str, Task]:
    changed = plan if universe.role == "registered" else declared.plan_of(plan, universe)
    out = {}
    for part in plan["hypotheses"][h]["parts"]:
        analysis = part["estimand"]["analysis"]
        # The registered universe runs as the registered analysis did, so that its numbers are the same.
        together: tuple[str, ...] = ()
        if universe.role != "registered":
            together = waiting_terms(changed["analyses"][analysis], needed[analysis])
        out[analysis] = Task(changed, analysis, together)
    return out


def _multiverse(
    plan: Mapping[str, Any], h: str, declared: Declared, found: Mapping[str, Found]
) -> Multiverse:
    claim = plan["hypotheses"][h]
    own = found[declared.universes[0].id]
    rows = []
    for u in declared.universes:
        f = found[u.id]
        shown = f.estimates[0] if f.estimates else None
        rows.append(
            {
                "universe": u.id,
                "multiverse": u.multiverse,
                "role": u.role,
                **{d.name: d.label(u.choices[d.name]) for d in declared.dimensions},
                "estimate": np.nan if shown is None else float(shown.value),
                "low": np.nan if shown is None else float(shown.low),
                "high": np.nan if shown is None else float(shown.high),
                "outcome": f.outcome,
                "reason_code": f.reason_code,
                "agrees": f.state == "run" and f.outcome == own.outcome,
                "state": f.state,
                "why": f.why,
            }
        )
    table = pd.DataFrame(rows)
    crossed = table[table["multiverse"] > 0]
    varied = [d.name for d in declared.dimensions if d.type != "non_equivalent"]
    spread = spread_by_choice(crossed["estimate"].to_numpy(dtype=np.float64), crossed[varied])
    level = next((f.estimates[0].level for f in found.values() if f.estimates), 0.95)
    first = claim["parts"][0]
    analysis = first["estimand"]["analysis"]
    return Multiverse(
        hypothesis=h,
        purpose=str(claim["role"]),
        analysis=analysis,
        method=plan["analyses"][analysis]["method"],
        quantity=first["estimand"]["quantity"],
        scale=str(first["sesoi"].get("scale", "")),
        level=level,
        bands=_bands(first),
        declared=declared,
        found=dict(found),
        table=table,
        by_choice=spread,
    )


def _bands(part: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    """Return what the rule of a part compares its estimate with."""
    rule = Rule.from_plan(part)
    if rule.kind == "threshold":
        return ((float(rule.threshold or 0.0), float(rule.threshold or 0.0)),)
    return (rule.ends,)
