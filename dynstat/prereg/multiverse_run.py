"""Run every universe: prepare the data as the plan says, estimate, and judge by the registered rule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError
from ..files import canonical_json
from ..parallel import each, workers
from .contingencies import analyse
from .execute import Execution
from .flow import check_gate, leave_out
from .study import register_methods

if TYPE_CHECKING:
    import xarray as xr

    from ..inference.estimate import Estimate
    from .multiverse_spec import Universe

Array = NDArray[np.float64]
Progress = Callable[[int, int, str], None]
#: From the estimates of a claim's parts to outcome and reason code.
Judge = Callable[[tuple[Any, ...]], tuple[str, str]]
#: Methods whose panel shares many universes can share the work of, with the formula's option.
_SHARES = ("variance.shares@1", "variance.residual_split@1")
_PIECES_A_JOB = 4
_PIECE = 4


@dataclass(frozen=True)
class Found:
    """What came of one universe.

    Attributes
    ----------
    state : {"run", "missing", "errored"}
        Missing: the data hold no such outcome. Errored: the analysis failed.
    outcome, reason_code : str
        By the registered rule at the registered level; a state such as ``inadmissible`` where a gate stands
        in its place; "" where it was not run.
    estimates : tuple of Estimate
        One a part of the claim; empty where there is none, or where a gate withholds it.
    why : str
        For all that has no outcome of the rule.
    """

    state: str
    outcome: str = ""
    reason_code: str = ""
    estimates: tuple[Estimate, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Failure:
    """Why an analysis gave nothing in a universe."""

    state: str
    why: str


NO_PROMPT = Failure("missing", "no prompt is left in which every run has a value of the outcome")


@dataclass(frozen=True)
class Waiting:
    """Values of an outcome whose shares are estimated together with those of other universes."""

    spec: Mapping[str, Any]
    terms: tuple[str, ...]
    values: Array
    prompts: tuple[str, ...]


@dataclass
class Made:
    """What one analysis gave under one version of the plan, and what gates say of the hypotheses.

    `told` names the planned contingencies that were used.
    """

    states: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    result: dict[str, Estimate] | Failure | Waiting = field(default_factory=dict)
    told: str = ""


@dataclass(frozen=True)
class Task:
    """One analysis of one version of the plan.

    `together` names the terms whose shares wait for those of other universes; none where more is asked for.
    """

    plan: Mapping[str, Any]
    analysis: str
    together: tuple[str, ...]

    @property
    def key(self) -> bytes:
        """Equal for tasks that give equal results."""
        return canonical_json([self.plan["data"], self.plan["analyses"], self.analysis, list(self.together)])


def make_all(
    tasks: Iterable[Task],
    registered: Mapping[str, Any],
    ds: xr.Dataset,
    *,
    jobs: int = 1,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> dict[bytes, Made]:
    """Carry out tasks, equal ones once, and estimate together what shares its design.

    Results do not depend on `jobs`: workers give values of outcomes and whole analyses, each by itself.
    `folder` is the study's, whose methods other processes must register too.
    """
    wanted = {t.key: t for t in tasks}
    whole = untouched(registered, ds)
    # Few at a time: every piece takes the data along where there are several processes.
    size = -(-len(wanted) // (jobs * _PIECES_A_JOB)) if jobs > 1 else _PIECE
    every = list(wanted.values())
    pieces = [every[i : i + size] for i in range(0, len(every), size or 1)]
    made: dict[bytes, Made] = {}
    function = partial(_chunk, ds=ds, whole=whole, folder=folder)
    with workers(jobs) if jobs > 1 else nullcontext():
        for piece, results in zip(pieces, each(function, pieces), strict=True):
            made |= {t.key: r for t, r in zip(piece, results, strict=True)}
            if progress:
                progress(len(made), len(wanted), "universes")
    _shares_together(made, ds)
    return made


@dataclass(frozen=True)
class Whole:
    """The registered plan on data of which its rules keep every prompt, and what its gates say of them."""

    plan: Mapping[str, Any]
    states: Mapping[str, tuple[str, str, str]]


def untouched(plan: Mapping[str, Any], ds: xr.Dataset) -> Whole | None:
    """Return what the gates say where the plan's rules keep every prompt; None where they do not.

    A universe with the same rules, whose outcome too has a value in every run, needs no copy of the data.
    """
    out = Execution()
    kept = leave_out(plan, ds, out)
    if not kept.sizes["prompt"] or kept.sizes["prompt"] < ds.sizes["prompt"] or out.states:
        return None
    for name, gate in plan["gates"].items():
        check_gate(name, gate, kept, out)
    return Whole(plan, dict(out.states))


def waiting_terms(spec: Mapping[str, Any], quantities: Collection[str]) -> tuple[str, ...]:
    """Return the terms whose shares are asked for, where nothing else is: one pass gives many outcomes."""
    of_panel = [q for q in sorted(quantities) if q.startswith("share.")]
    alone = len(of_panel) == len(quantities) and not spec.get("on_failure")
    if spec["method"] in _SHARES and spec["outcome"] and alone:
        return tuple(q.removeprefix("share.") for q in of_panel)
    return ()


def judged(
    plan: Mapping[str, Any], universe: Universe, hypothesis: str, made: Mapping[str, Made], judge: Judge
) -> Found:
    """Return the outcome of a hypothesis from the analyses of one universe, gates first.

    As a registered run decides, save that a universe without a single prompt is missing, whatever its gates.
    """
    claim = plan["hypotheses"][hypothesis]
    where = [(p["estimand"]["analysis"], p["estimand"]["quantity"]) for p in claim["parts"]]
    failures = [r for a, _ in where if isinstance(r := made[a].result, Failure)]
    state = next((m.states[hypothesis] for m in made.values() if hypothesis in m.states), None)
    hidden = state is not None and (universe.role == "registered" or failures[:1] != [NO_PROMPT])
    if failures and not hidden:
        return Found(failures[0].state, why=failures[0].why)
    results: list[Any] = [{} if isinstance(r := made[a].result, Failure) else r for a, _ in where]
    estimates = tuple(r[q] for r, (_, q) in zip(results, where, strict=True) if q in r)
    if state is not None:
        shown = estimates if state[0] == "not_testable" and len(estimates) == len(where) else ()
        return Found("run", state[0], state[1], shown, state[2])
    if len(estimates) < len(where):
        lost = next(q for r, (_, q) in zip(results, where, strict=True) if q not in r)
        return Found("errored", why=f"the analysis gave no {lost}")
    if any(e.pivot is None or np.isnan(e.value) for e in estimates):
        words = next(e.interval for e in estimates if e.pivot is None or np.isnan(e.value))
        why = words.removeprefix("none (").removesuffix(")") if words.startswith("none (") else ""
        told = "the estimate has no interval" + (f": {why}" if why else "")
        return Found("run", "not_testable", "no_interval", estimates, told)
    told = "; ".join(dict.fromkeys(made[a].told for a, _ in where if made[a].told))
    outcome, code = judge(estimates)
    return Found("run", outcome, code, estimates, told)


def _chunk(tasks: Sequence[Task], *, ds: xr.Dataset, whole: Whole | None, folder: Path | None) -> list[Made]:
    if folder is not None:
        register_methods(folder)
    return [_make(t, ds, whole) for t in tasks]


def _make(task: Task, ds: xr.Dataset, whole: Whole | None) -> Made:
    spec = task.plan["analyses"][task.analysis]
    try:
        # Whole analyses get the copy that a registered run makes: another layout in memory rounds otherwise.
        values = _all_there(task, whole.plan, ds) if whole is not None and task.together else None
        if whole is not None and values is not None:
            states = dict(whole.states)
        else:
            run = Execution()
            ds = leave_out(task.plan, ds, run)
            if not ds.sizes["prompt"]:
                return Made(run.states, NO_PROMPT)
            for name, gate in task.plan["gates"].items():
                check_gate(name, gate, ds, run)
            states = run.states
    except DynstatError as e:
        return Made({}, Failure("missing" if e.code == "D103" else "errored", f"{e.code} {e.what}"))
    try:
        if not task.together:
            done = analyse(spec, ds)
            if done.failed:
                return Made(states, _failed(done.failed, spec, ds))
            told = "; ".join(f"planned contingency, {c.found}: {c.do}" for c in done.contingencies)
            return Made(states, dict(done.estimates), told)
        y = _values(spec, ds) if values is None or task.analysis not in values else values[task.analysis]
        return Made(states, Waiting(spec, task.together, y, tuple(ds["prompt"].values.astype(str).tolist())))
    except DynstatError as e:
        return Made(states, _failed(f"{e.code} {e.what}", spec, ds))
    except Exception as e:  # one universe that fails must not take the others with it, and is listed
        return Made(states, Failure("errored", f"{type(e).__name__}: {e}"))


def _all_there(task: Task, registered: Mapping[str, Any], ds: xr.Dataset) -> dict[str, Array] | None:
    """Return the outcomes that are not the registered ones; None where a run lacks one, or rules differ."""
    if task.plan["data"] != registered["data"]:
        return None
    out = {}
    for name, spec in task.plan["analyses"].items():
        if spec["outcome"] and spec["outcome"] != registered["analyses"][name]["outcome"]:
            try:
                out[name] = _values(spec, ds)
            except DynstatError:
                return None
            if not np.isfinite(out[name]).all():
                return None
    return out


def _values(spec: Mapping[str, Any], ds: xr.Dataset) -> Array:
    from ..metrics.labelled import run_metric

    values = run_metric(ds, spec["outcome"]).transpose("model", "prompt", "sample").values
    return np.asarray(values, dtype=np.float64)


def _failed(why: str, spec: Mapping[str, Any], ds: xr.Dataset) -> Failure:
    """Say whether the data lack what the universe asks for, or the analysis failed on what they hold."""
    code = why.split(" ")[0]
    if code == "D103":
        return Failure("missing", why)
    if spec["outcome"] and not code.startswith("Y"):
        from ..metrics.labelled import run_metric

        try:
            run_metric(ds, spec["outcome"])
        except DynstatError as e:
            if why == f"{e.code} {e.what}":
                return Failure("missing", why)
    return Failure("errored", why)


def _shares_together(made: dict[bytes, Made], ds: xr.Dataset) -> None:
    """Estimate the waiting shares, all outcomes on the same rows and of the same model at once."""
    from ..mixed.methods import run_frame
    from ..mixed.shares_many import shares_many

    groups: dict[bytes, list[tuple[bytes, Waiting]]] = {}
    for key, m in made.items():
        if isinstance(m.result, Waiting):
            w = m.result
            rows = np.packbits(np.isfinite(w.values)).tobytes()
            same = canonical_json([w.spec["method"], w.spec["options"], list(w.prompts), list(w.terms)])
            groups.setdefault(same + rows, []).append((key, w))
    names = ds["prompt"].values.astype(str).tolist()
    for members in groups.values():
        first = members[0][1]
        options = first.spec["options"]
        part = ds.isel(prompt=[names.index(p) for p in first.prompts])
        like = part["n_generated"].transpose("model", "prompt", "sample").copy(data=first.values)
        there = np.isfinite(first.values)
        columns = np.column_stack([w.values[there] for _, w in members])
        chosen = {k: options[k] for k in ("unit", "strata", "level")}
        try:
            found: Sequence[Any] = shares_many(
                options["formula"],
                run_frame(part, like),
                columns,
                method=first.spec["method"],
                seed=int(first.spec["seed"]),
                terms=first.terms,
                **chosen,
            )
        except DynstatError as e:
            found = [e] * len(members)
        for (key, _), result in zip(members, found, strict=True):
            failed = isinstance(result, DynstatError)
            made[key].result = Failure("errored", f"{result.code} {result.what}") if failed else result
