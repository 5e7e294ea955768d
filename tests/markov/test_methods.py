"""Chains as methods of a plan: against loops over the states of a dataset, and what rules make of them."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import dynstat.reports
from dynstat.dataset.io import save
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.methods_markov import CODES
from dynstat.inference.rules import Rule, null_p
from dynstat.metrics.labelled import collapse, states
from dynstat.metrics.states import Thresholds
from dynstat.prereg.check import check_study
from dynstat.prereg.runner import run_study
from dynstat.prereg.template import PLAN, new_study
from dynstat.registry import METHODS

from ..dataset.conftest import make_panel

LIMITS = {"turbulence": 0.25, "branching": 0.14, "synchronisation": 0.5}
EPISODES = {"enter": 0.1, "leave": 0.15}
METRICS = ("entropy", "step_length", "turning_angle", "synchronisation", "top1_probability")


@pytest.fixture(scope="module")
def ds():
    made = make_panel(
        models=(0, 1, 2),
        prompts=range(6),
        layers=(6, 5, 6),
        n_tokens=26,
        gaps=False,
        metrics=METRICS,
    ).load()
    # Prompts so long that the state at their last token reads nothing of the first.
    made["n_prompt"].values[:] += 4
    made["phase"].values[:] = np.arange(26) >= made["n_prompt"].values[..., None]
    made["n_generated"].values[:] = 26 - made["n_prompt"].values
    return made


def run(name, ds, seed=3, outcome=None, **options):
    entry = METHODS.get(f"markov.{name}@1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        out = entry.resolve()(ds, outcome=outcome, seed=seed, **entry.fill(options))
    assert all(e.key == key and e.method == entry.id for key, e in out.items())
    return out


def generated(ds, model, p, s):
    """Return the positions of generated tokens whose states read no first token."""
    start = int(ds["n_prompt"].values[model, p, s])
    return range(start, ds.sizes["token"])


def loop_over(ds):
    """Yield the last layer's states along generated tokens, run by run."""
    codes = states(ds, Thresholds.fixed(*LIMITS.values())).values
    last = ds["layers"].values - 1
    for m, p, s in np.ndindex(codes.shape[:3]):
        yield m, [int(codes[m, p, s, t, last[m]]) for t in generated(ds, m, p, s)]


def test_chain_is_a_count_over_the_dataset(ds):
    counts = np.zeros((5, 5))
    for _, row in loop_over(ds):
        for a, b in zip(row, row[1:], strict=False):
            if min(a, b) >= 0:
                counts[a, b] += 1
    out = run("chain", ds, **LIMITS, replicates=200, surrogates=99)
    rows, total = counts.sum(axis=1), counts.sum()
    assert total > 500 and (rows > 0).all()
    for i, a in enumerate(CODES["state"]):
        own = counts[i, i] / rows[i]
        assert out[f"self_transition.{a}"].value == pytest.approx(own)
        assert out[f"occupancy.{a}"].value == pytest.approx(counts[:, i].sum() / total)
        assert out[f"lift.{a}"].value == pytest.approx(own - counts[:, i].sum() / total)
        for j, b in enumerate(CODES["state"]):
            assert out[f"transition.{a}.{b}"].value == pytest.approx(counts[i, j] / rows[i])
        stay = out[f"stay.{a}"]
        assert stay.null["name"] == "constant hazard" and 0 < stay.null["p"] <= 1
    assert set(out) <= set(METHODS.get("markov.chain@1").quantities)
    assert out["self_transition.STABLE"].unit == "prompt" and out["self_transition.STABLE"].n["prompts"] == 6


def test_one_model_alone(ds):
    mine = [row for m, row in loop_over(ds) if m == 1]
    seen = [c for row in mine for c in row[1:] if c >= 0]
    out = run("chain", ds, **LIMITS, model="model-1", interval="sandwich", surrogates=0)
    assert out["occupancy.STABLE"].value == pytest.approx(np.mean(np.array(seen) == 0), abs=0.02)
    assert out["occupancy.STABLE"].n["sequences"] == len(mine)
    assert not [k for k in out if k.startswith("stay")]


def test_reopening_within_one_token_is_a_share(ds):
    inside = collapse(ds, **EPISODES).values
    at_risk = left = 0
    for m, p, s in np.ndindex(inside.shape[:3]):
        start = int(ds["n_prompt"].values[m, p, s])
        row = inside[m, p, s, start:]
        for t in range(1, len(row) - 1):
            if row[t] == 1 and row[t - 1] == 0:
                at_risk, left = at_risk + 1, left + (row[t + 1] == 0)
    out = run("reopening", ds, **EPISODES, horizon=1, by="model", replicates=199, permutations=199)
    e = out["reopening"]
    assert at_risk > 50 and e.value == pytest.approx(left / at_risk)
    assert e.null["name"] == "memoryless" and "reopening.model-2" in out
    assert out["naive"].null["name"] == "memoryless" and out["naive"].value > e.value
    rule = Rule("in_range", range=(0.0, 1.0), beyond_null="memoryless")
    assert null_p(rule, e) == e.null["p"] and null_p(Rule("in_range", range=(0, 1), beyond_null="x"), e) == 1


def test_distance_and_stationarity(ds):
    out = run("transition_distance", ds, **LIMITS, permutations=199, replicates=199)
    e = out["largest_distance"]
    assert e.null["name"] == "exchangeable models" and len(out) == 4 and "distance.model-0+model-2" in out
    # Models are drawn alike: what lies between them is noise.
    assert e.value < e.diagnostics["plain"] and e.null["p"] > 0.01
    out = run("stationarity", ds, **LIMITS, permutations=199, replicates=199)
    assert set(out) == {"cramers_v", "total_variation"}
    e = out["total_variation"]
    assert e.null["name"] == "blocks permuted" and e.diagnostics["Pearson_p"] > 0.01 and e.low == 0


def test_a_change_along_the_run_and_between_models_is_seen(ds):
    moved = ds.copy(deep=True)
    # One model's entropy keeps its side for four tokens at first, and changes it at every token later.
    t = np.arange(26)
    high = np.where(t < 16, t // 4 % 2, t % 2) == 1
    moved["entropy"].values[0] = np.where(high, 0.9, 0.1)[:, None]
    out = run("stationarity", moved, **LIMITS, blocks=2, permutations=199, replicates=199)
    assert out["total_variation"].null["p"] < 0.05 and out["total_variation"].value > 0.1
    moved["entropy"].values[0] = np.where(t // 4 % 2 == 1, 0.9, 0.1)[:, None]
    e = run("transition_distance", moved, **LIMITS, permutations=199, replicates=199)["largest_distance"]
    assert e.null["p"] < 0.05 and "model-0" in e.diagnostics["pair"]


def test_motifs_and_first_visits_along_layers(ds):
    wave = ds.copy(deep=True)
    # High and low entropy and turning alternate over depth: STABLE, SURFACE_BRANCHING, STABLE, ...
    shape = wave["entropy"].values.shape
    rng = np.random.default_rng(1)
    phase = rng.integers(0, 2, shape[:4])[..., None]
    high = (np.arange(shape[4]) // 2 + phase) % 2 == 1
    wave["entropy"].values[:] = np.where(high, 0.9, 0.1)
    wave["step_length"].values[:] = np.where(np.isnan(wave["step_length"].values), np.nan, 0.01)
    options = {"tokens": "all", **LIMITS}
    out = run("motifs", wave, **options, n=2, surrogates=199, replicates=99, nulls=["depth_pooled"])
    e = out["conserved"]
    assert (
        e.null["name"] == "without grammar" and out["conserved.depth_pooled"].null["name"] == "depth_pooled"
    )
    assert e.value == len([k for k in out if k.startswith("enrichment.")])
    order = ["STABLE", "SURFACE_BRANCHING"]
    out = run("first_visits", wave, **options, order=order, surrogates=99, replicates=99)
    codes = states(wave, Thresholds.fixed(*LIMITS.values())).values
    met = total = 0
    for m, p, s in np.ndindex(codes.shape[:3]):
        for t in generated(wave, m, p, s):
            row = [c for c in codes[m, p, s, t].tolist() if c >= 0]
            total += 1
            places = [row.index(c) if c in row else None for c in (0, 2)]
            met += None not in places and places[0] < places[1]
    assert CODES["state"][2] == "SURFACE_BRANCHING" and total > 500
    assert out["path_share"].value == pytest.approx(met / total)
    assert out["difference"].value == pytest.approx(met / total - out["path_share"].null["mean"])
    assert out["difference"].null["name"] == "depth" and "path_share.model-0" in out


def test_last_prompt_token_is_the_default_of_layers(ds):
    out = run("first_visits", ds, **LIMITS, order=["STABLE", "COMMITTED"], surrogates=99, replicates=99)
    assert out["path_share"].n["sequences"] == 3 * 6  # one a model and prompt; samples share their prompt


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("chain", {"model": "nobody"}, "S407"),
        ("chain", {"outcome": {"metric": "entropy@1"}}, "Y002"),
        ("chain", {"codes": "STABLE"}, "Y003"),
        ("first_visits", {"order": ["STABLE"]}, "Y003"),
        ("first_visits", {"order": ["STABLE", "SB"]}, "Y003"),
        ("motifs", {"nulls": []}, "Y003"),
        ("stationarity", {"blocks": 1}, "Y003"),
        ("reopening", {"horizon": 0}, "Y003"),
        ("reopening", {"state": "STABLE", **EPISODES}, "S407"),
    ],
)
def test_refusals(ds, name, options, code):
    with pytest.raises(DynstatError) as e:
        run(name, ds, **options)
    assert e.value.code == code


DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["cluster.md", "markov.md"])
def test_the_plan_on_the_page_is_accepted(page, tmp_path):
    text = (DOCS / page).read_text(encoding="utf-8").partition("## In a plan")[2]
    (excerpt,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    folder = new_study(tmp_path / "excerpt")
    head = PLAN.format(id="excerpt").partition("analyses:")[0]
    (folder / "plan.yaml").write_text(head + excerpt, encoding="utf-8")
    found = check_study(folder)
    assert found["m"] >= 2
    broken = excerpt.replace("quantity: ", "quantity: no_", 1)
    (folder / "plan.yaml").write_text(head + broken, encoding="utf-8")
    with pytest.raises(DynstatError) as e:
        check_study(folder)
    assert e.value.code == "P301"


@pytest.mark.parametrize("page", ["cluster.md", "markov.md"])
def test_the_table_on_the_page_names_what_is_registered(page):
    text = (DOCS / page).read_text(encoding="utf-8").partition("## In a plan")[2]
    rows = [r.split("|") for r in text.splitlines() if re.match(r"\| [A-Z]\d+|\| –", r)]
    assert rows
    for row in rows:
        (method,) = re.findall(r"`([a-z_.]+@1)`", row[2])
        for quantity in re.findall(r"`([^`]+)`", row[3]):
            known = [*METHODS.get(method).quantities, *METHODS.get(method).options]
            assert quantity.partition(":")[0] in known, (method, quantity)


WHOLE = """\
analyses:
  S1:
    method: markov.chain@1
    options: {turbulence: 0.25, branching: 0.14, replicates: 99, surrogates: 99}
    seed: 1
hypotheses:
  V8:
    claim: Full bifurcation is left at once.
    role: primary
    family: main
    estimand: {analysis: S1, quantity: self_transition.FULL_BIFURCATION}
    rule: threshold
    direction: less
    threshold: 0.9
    sesoi: {scale: probability, reason: "far from staying"}
    if_supported: Left at once.
    if_rejected: Stayed in.
    does_not_show: ["why"]
exploratory:
  X1:
    method: structure.agreement@1
    outcome: {metric: run_mean@1, of: entropy}
    options: {families: architecture, k: 2, strata: "", replicates: 99, null_sets: 19}
    seed: 2
  X2:
    method: structure.pairs@1
    outcome: {metric: run_mean@1, of: entropy}
    options:
      {pairs: [[model-0, model-1]], k: 2, strata: "", replicates: 100, null_sets: 99, null_replicates: 50}
    seed: 2
  X3:
    method: structure.largest_gap@1
    outcome: {metric: run_mean@1, of: entropy}
    options: {strata: "", null_sets: 199, replicates: 99}
    seed: 2
  X4:
    method: markov.reopening@1
    options: {enter: 0.1, leave: 0.15, horizon: 3, replicates: 99, permutations: 99}
    seed: 2
  X5:
    method: markov.transition_distance@1
    options: {turbulence: 0.25, branching: 0.14, permutations: 99, replicates: 99}
    seed: 2
  X6:
    method: markov.first_visits@1
    options: {turbulence: 0.25, branching: 0.14, order: [STABLE, COMMITTED], surrogates: 99, replicates: 99}
    seed: 2
  X7:
    method: markov.motifs@1
    options: {turbulence: 0.25, branching: 0.14, tokens: all, n: 2, nulls: [depth_pooled], surrogates: 99}
    seed: 2
  X8:
    method: structure.anomaly@1
    outcome: {metric: run_mean@1, of: entropy}
    options: {strata: "", permutations: 99}
    seed: 2
  X9:
    method: markov.stationarity@1
    options: {turbulence: 0.25, branching: 0.14, permutations: 99, replicates: 99}
    seed: 2
"""


def test_a_whole_plan_runs_and_its_report_holds_the_nulls(ds, tmp_path):
    folder = new_study(tmp_path / "rooms")
    text = PLAN.format(id="rooms").partition("analyses:")[0].replace("data:prompts/panel.csv", "prompts.csv")
    (folder / "plan.yaml").write_text(text + WHOLE, encoding="utf-8")
    lines = ["id,text,category,split", *(f"p{i:02},prompt {i},{'abc'[i % 3]},panel" for i in range(6))]
    (folder / "prompts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "out"
    inputs = {
        "prompts": {"sha256": "d" * 64, "split": "panel", "n": 6},
        "models": [{"id": f"model-{i}"} for i in range(3)],
        "settings": {"budget": 8},
    }
    run_study(folder, save(ds.assign_attrs(inputs=json.dumps(inputs)), tmp_path / "panel.nc"), out)
    rows = {r["key"]: r["raw"] for r in json.loads((out / "results.json").read_text(encoding="utf-8"))}
    assert rows["notrun.n"] == 0, [v for k, v in rows.items() if k.startswith("notrun")]
    nulls = {
        "X1.ari": "permutation",
        "X2.named.frequency": "structureless",
        "X2.together.model-0+model-1": "structureless",
        "X3.gap_factor": "every population",
        "X4.reopening": "memoryless",
        "X5.largest_distance": "exchangeable models",
        "X5.distance.model-0+model-2": "exchangeable models",
        "X6.difference": "depth",
        "X7.conserved": "without grammar",
        "X8.anomaly": "exchangeable models",
        "X9.cramers_v": "blocks permuted",
        "S1.stay.STABLE": "constant hazard",
    }
    for key, name in nulls.items():
        assert rows[f"estimate.{key}.null.name"] == name and 0 < rows[f"estimate.{key}.null.p"] <= 1
    # No quantity is taken for a share of variance, nor units of a bootstrap for those of a jackknife.
    report = dynstat.reports.build(out).read_text(encoding="utf-8")
    assert dynstat.reports.check(out)
    assert "Shares of variance" not in report and "jackknife units" not in report
    for key in nulls:
        analysis, _, name = key.partition(".")
        assert any(analysis in line and name in line.replace("\\", "") for line in report.splitlines()), key
