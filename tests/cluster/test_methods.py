"""Structure as methods of a plan: what comes out of a dataset, and what rules make of it."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
import types
import warnings

import numpy as np
import pandas as pd
import pytest

from dynstat.cluster import methods as room
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.rules import Rule, judge
from dynstat.metrics.labelled import run_metric
from dynstat.registry import METHODS, parse_metric

from ..dataset.conftest import make_panel

OUTCOME = {"metric": "run_mean@1", "of": "entropy"}
OTHER = {"metric": "run_mean@1", "of": "synchronisation", "layer": 1}
HEIGHT = np.array([1.0, 1.1, 5.0, 5.2, 22.0, 24.0])
MODELS, PROMPTS = 6, 12


@pytest.fixture(scope="module")
def ds():
    made = make_panel(models=range(MODELS), prompts=range(PROMPTS), n_tokens=8, gaps=False).load()
    noise = made["entropy"].values
    made["entropy"].values[:] = noise * 0.1 + HEIGHT[:, None, None, None, None]
    return made.assign_coords(
        family=("model", ["a", "a", "b", "b", "c", "c"]),
        recipe=("model", ["r0", "r0", "r1", "r1", "r2", "r3"]),
    )


def run(name, ds, outcome=OUTCOME, seed=3, **options):
    entry = METHODS.get(f"structure.{name}@1")
    filled = {**parse_metric(outcome)[1], "metric": outcome["metric"]} if outcome else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        out = entry.resolve()(ds, outcome=filled, seed=seed, **entry.fill(options))
    assert all(e.key == key and e.method == entry.id and e.seed in (seed, None) for key, e in out.items())
    return out


def threshold(direction, value, null=""):
    return Rule("threshold", direction, threshold=value, beyond_null=null)


def test_agreement_with_families(ds):
    out = run("agreement", ds, families="family", k=3, replicates=200, null_sets=19)
    e = out["ari"]
    # Three pairs in six models: one of the 15 ways to pair them is this one.
    assert e.value == pytest.approx(1) and e.null["p"] == pytest.approx(1 / 15)
    assert e.null["name"] == "permutation" and e.null["exact"] and e.unit == "prompt" and e.n["prompts"] == 12
    assert out["fragmentation.clusters_per_item"].value == pytest.approx(0.5)
    assert set(out) <= set(METHODS.get("structure.agreement").quantities)
    two = run("agreement", ds, families="family", k=0, replicates=200, null_sets=0)["ari"]
    # The largest jump parts the last two from the others: by hand, 3 of 15 pairs are in both.
    pairs = list(itertools.combinations(range(6), 2))
    both = sum(i // 2 == j // 2 for i, j in pairs if (i < 4) == (j < 4))
    in_a, in_b = sum((i < 4) == (j < 4) for i, j in pairs), 3
    expected = in_a * in_b / len(pairs)
    assert two.value == pytest.approx((both - expected) / ((in_a + in_b) / 2 - expected))


def test_agreement_with_another_metric(ds):
    same = run("agreement", ds, against={"metric": "run_mean@1", "of": "entropy"}, k=3, replicates=200)["ari"]
    assert same.value == 1 and same.low > 0.9
    other = run("agreement", ds, against=OTHER, k=3, unit="template", strata="", replicates=200)["ari"]
    assert other.value < 1 and other.unit == "template" and other.n["templates"] == 2


def test_templates_are_means_of_their_prompts(ds):
    units = room.plan_units(ds, OUTCOME, "m", unit="template", strata="", standardize=False)
    runs = run_metric(ds, OUTCOME).mean("sample")
    wanted = runs.groupby("template").mean("prompt").transpose("model", "template").values
    np.testing.assert_allclose(units.values[..., 0], wanted, rtol=1e-6)
    with pytest.raises(DynstatError) as e:
        room.plan_units(ds, OUTCOME, "m", unit="template")
    assert e.value.code == "S404" and "more than one" in e.value.what


def test_largest_gap_with_prompts(ds):
    out = run("largest_gap", ds, null_sets=2000, replicates=200)
    means = run_metric(ds, OUTCOME).mean(("prompt", "sample")).values
    logs = np.sort(np.log(means))
    e = out["gap_factor"]
    assert e.value == pytest.approx(float(np.exp(np.diff(logs).max())), rel=1e-5)
    p = {name: out[f"gap_factor.{name}"].null for name in ("normal", "uniform", "t3", "exponential")}
    assert e.null["p"] == max(n["p"] for n in p.values()) and e.null["name"] == "every population"
    assert p["t3"]["name"] == "t3 population" and e.low < e.value < e.high
    left = out["gap_factor.left_out"]
    # Without the first pair, or the second, the groups change: nothing is known of the gap then.
    assert left.null["p"] >= e.null["p"] and set(out) <= set(METHODS.get("structure.largest_gap").quantities)


def test_groups_that_hang_on_one_model_are_not_supported_and_can_be_rejected(ds):
    lone = ds.copy(deep=True)
    lone["entropy"].values[:] = ds["entropy"].values - HEIGHT[:, None, None, None, None]
    lone["entropy"].values[:] += np.array([1.0, 1.1, 1.2, 1.3, 1.45, 30.0])[:, None, None, None, None]
    out = run("largest_gap", lone, null_sets=500, replicates=200)
    left = out["gap_factor.left_out"]
    assert left.value == 1 and "groups_change_without" in left.diagnostics and left.pivot is not None
    parts = [(threshold("greater", 5.0), out["gap_factor"]), (threshold("greater", 5.0), left)]
    assert judge(parts, 0.05).outcome == "inconclusive"
    assert judge([(threshold("greater", 100.0), out["gap_factor"]), parts[1]], 0.05).outcome == "rejected"


def test_largest_gap_with_seeds_of_a_recipe(ds):
    out = run("largest_gap", ds, unit="model", cell="recipe", null_sets=500)
    e = out["gap_factor"]
    assert e.unit == "replicate" and e.n["models"] == 4 and e.n["values"] == 6 and "t(2)" in e.interval
    with pytest.raises(DynstatError) as error:
        run("largest_gap", ds, unit="model")
    assert error.value.code == "Y002"


def test_stability_and_anomaly(ds):
    out = run("stability", ds, k=3, null_sets=99, replicates=40)
    e = out["stability"]
    assert e.null["name"] == "structureless" and 0 < e.null["p"] <= 1 and e.diagnostics["statistic"] == "mean"
    assert out["jaccard.0"].diagnostics["models"] == "model-0, model-1"
    a = run("anomaly", ds, standardize=False, permutations=199)["anomaly"]
    means = run_metric(ds, OUTCOME).mean(("prompt", "sample")).values
    farthest = max(abs(m - np.delete(means, i).mean()) for i, m in enumerate(means))
    assert a.value + a.null["q95"] == pytest.approx(farthest, rel=1e-6)
    assert a.diagnostics["farthest"] == "model-5" and a.null["name"] == "exchangeable models" and a.low > 0


def test_pairs_on_a_dataset(ds):
    named = [["model-0", "model-1"], ["model-4", "model-5"]]
    out = run("pairs", ds, pairs=named, k=3, replicates=100, null_sets=99, null_replicates=50)
    assert {"named.frequency", "others.frequency", "surviving_pairs"} < set(out)
    # Each pair lies together in all replicates; so do pairs of structureless models this far apart.
    assert out["named.frequency"].value == 1 and out["named.frequency"].null["p"] > 0.05
    assert {"together.model-0+model-1", "together.model-4+model-5"} < set(out)
    with pytest.raises(DynstatError) as e:
        run("pairs", ds, pairs=[["model-0", "nobody"]], k=3, replicates=100, null_sets=99, null_replicates=50)
    assert e.value.code == "S407"


@pytest.mark.parametrize(
    ("frequency", "q", "outcome", "reason"),
    [
        ((1.0, 1.0, 0.2), (0.01, 0.02, 0.9), "supported", "supported_by_rule"),
        # The third pair is as frequent, and nothing against structureless data: it does not survive.
        ((1.0, 1.0, 1.0), (0.01, 0.02, 0.6), "supported", "supported_by_rule"),
        ((1.0, 1.0, 1.0), (0.01, 0.02, 0.02), "rejected", "above_threshold"),
        ((1.0, 0.5, 0.2), (0.01, 0.02, 0.9), "rejected", "below_threshold"),
        ((1.0, 1.0, 0.2), (0.01, 0.06, 0.9), "inconclusive", "not_beyond_null"),
        ((1.0, 0.955, 0.2), (0.01, 0.02, 0.9), "inconclusive", "interval_straddles"),
    ],
)
def test_exactly_the_named_pairs(monkeypatch, ds, frequency, q, outcome, reason):
    table = pd.DataFrame(
        {
            "item_1": ["model-0", "model-2", "model-4"],
            "item_2": ["model-1", "model-3", "model-5"],
            "frequency": frequency,
            "p": np.array(q) / 3,
            "q": q,
        }
    ).sort_values("frequency", ascending=False, kind="stable", ignore_index=True)
    table["survives"] = (table["frequency"] >= 0.95) & (table["q"] <= 0.05)
    keys = [f"together.{a}|{b}" for a, b in zip(table["item_1"], table["item_2"], strict=True)]
    made = {k: room.Estimate(k, 1, 0, 1, 0.95, "m", "i", "prompt", {}) for k in [*keys, "surviving_pairs"]}
    found = types.SimpleNamespace(
        table=table,
        n={"replicates": 1000, "null_sets": 999},
        level=0.95,
        unit="prompt",
        seed=3,
        thresholds=(0.95, 0.05),
        exactly=lambda pairs: None,
        estimates=lambda: dict(made),
    )
    monkeypatch.setattr(room, "pair_survival", lambda *a, **k: found)
    out = room.pairs(
        ds,
        outcome=OUTCOME,
        seed=3,
        pairs=[["model-1", "model-0"], ["model-2", "model-3"]],
        k=3,
        linkage="ward",
        null_sets=0,
        level=0.95,
        frequency=0.95,
        q=0.05,
        replicates=1000,
        null_replicates=200,
        null="rotation",
    )
    parts = [
        (threshold("greater", 0.95, "structureless"), out["named.frequency"]),
        (threshold("less", 0.95), out["others.frequency"]),
    ]
    verdict = judge(parts, 0.05)
    assert (verdict.outcome, verdict.reason_code) == (outcome, reason)


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("agreement", {}, "Y002"),
        ("agreement", {"families": "family", "against": OTHER}, "Y002"),
        ("agreement", {"families": "nothing"}, "S404"),
        ("agreement", {"against": {"metric": "run_mean"}}, "Y003"),
        ("agreement", {"against": {"metric": "run_mean@1", "off": "entropy"}}, "Y002"),
        ("stability", {"also": [{"metric": "entropy@1"}]}, "Y003"),
        ("stability", {"also": [{**OTHER, "special": "keep"}]}, "Y002"),
        ("stability", {"k": 1}, "Y003"),
        ("pairs", {}, "Y002"),
        ("pairs", {"pairs": [["a", "a"]]}, "Y003"),
    ],
)
def test_refusals(ds, name, options, code):
    with pytest.raises(DynstatError) as e:
        run(name, ds, **options)
    assert e.value.code == code


def test_an_outcome_is_needed(ds):
    for name in ("agreement", "pairs", "largest_gap", "stability", "anomaly"):
        with pytest.raises(DynstatError) as e:
            run(name, ds, outcome=None, **({"families": "family"} if name == "agreement" else {}))
        assert e.value.code == "Y002"


def test_metrics_of_options_are_written_out():
    filled = METHODS.get("structure.agreement@1").fill({"against": OTHER, "also": [OUTCOME]})
    assert filled["against"]["special"] == "drop" and filled["also"][0]["layer"] == "last"
    assert METHODS.get("structure.agreement@1").fill(filled) == filled


ENTRIES = [e for e in METHODS if e.name.startswith(("structure.", "markov."))]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.id)
def test_entries_are_those_of_their_functions(entry):
    function = entry.resolve()
    doc = inspect.getdoc(function)
    assert doc and entry.quantities and all(o.doc for o in entry.options.values())
    assert all(q.split(".")[0] in doc for q in entry.quantities)
    known = inspect.signature(function).parameters
    named = {n for n, p in known.items() if p.kind is p.KEYWORD_ONLY} - {"outcome", "seed"}
    assert named <= set(entry.options)
    assert named == set(entry.options) or any(p.kind is p.VAR_KEYWORD for p in known.values())
    own = {k: v for k, v in entry.fill({}).items() if not (entry.name == "structure.pairs" and k == "pairs")}
    assert entry.fill(own) == entry.fill({})


def test_choices_are_those_of_the_rooms():
    from dynstat.cluster.null_sets import KINDS
    from dynstat.cluster.spacings import check_populations
    from dynstat.inference import methods_markov, methods_structure
    from dynstat.markov.surrogates import NULLS
    from dynstat.registry import METRICS

    assert check_populations("all") == methods_structure.POPULATIONS
    assert set(METHODS.get("structure.stability").options["null"].allowed) == set(KINDS)
    assert methods_markov.NULLS == tuple(NULLS)
    for name, states in methods_markov.CODES.items():
        assert METRICS.get(name).flags == states


def test_plans_are_checked_without_numpy():
    code = (
        "import sys\nfrom dynstat.registry import METHODS\nlist(METHODS)\n"
        "METHODS.get('structure.agreement').fill({'against': {'metric': 'ratio_norm@1', 'tokens': 8}})\n"
        "METHODS.get('markov.motifs').fill({'nulls': ['depth']})\nassert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
