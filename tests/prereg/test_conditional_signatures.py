"""The study itself: its numbers, its null, and what it decides on data whose shares are planted."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from dynstat import data_path, study_path
from dynstat.dataset.build import build
from dynstat.dataset.io import save
from dynstat.errors import DynstatError
from dynstat.files import canonical_json, sha256_file
from dynstat.metrics.labelled import run_metric
from dynstat.prereg.chains import amendment, find_fitting
from dynstat.prereg.execute import Execution, leave_out
from dynstat.prereg.lock import load_lock, lock_study
from dynstat.prereg.plan import load_plan
from dynstat.prereg.runner import run_study
from dynstat.prereg.verify import verify_study

MODELS, CATEGORIES, TOKENS = 6, 6, 52
PROMPTS = sha256_file(data_path("prompts/panel.csv"))
OUTCOME = {"metric": "ratio_norm@1", "layer": "last", "phase": "generated", "tokens": 48, "scale": "log"}


@pytest.fixture(scope="module")
def plan():
    return load_plan("conditional_signatures").content


def spread(n: int, variance: float) -> np.ndarray:
    """Return n centred effects whose variance component is exactly the one wanted."""
    x = np.linspace(-1, 1, n)
    return x * np.sqrt(variance / x.var(ddof=1)) if variance else np.zeros(n)


def inputs(per: int = 6) -> dict:
    models = [
        {
            "id": f"m{i}",
            "revision": "local",
            "weights_sha256": str(i) * 64,
            "tokenizer_sha256": "b" * 64,
            "dtype": "float32",
        }
        for i in range(MODELS)
    ]
    return {
        "prompts": {"sha256": PROMPTS, "split": "panel", "n": CATEGORIES * per},
        "models": models,
        "settings": {"budget": TOKENS - 4},
    }


def planted(model: float, category: float, residual: float, samples: int = 4, per: int = 6, seed: int = 0):
    """Build a dataset whose log ratio_norm has given variances: one spike a run, of fitting height."""
    rng = np.random.default_rng(seed)
    n = CATEGORIES * per
    run = (MODELS, n, samples)
    by_prompt = np.repeat(spread(CATEGORIES, category), per)
    y = 1.5 + spread(MODELS, model)[:, None, None] + by_prompt[None, :, None]
    y = y + rng.normal(0, np.sqrt(residual), run)
    # max / mean of one value M among T - 1 ones is M T / (M + T - 1).
    ratio, values = np.exp(y), 48
    height = ratio * (values - 1) / (values - ratio)
    angle = np.full((*run, TOKENS, 2), 0.02, np.float32)
    angle[..., 20, :] = 0.02 * height[..., None]
    angle[..., :2, :] = np.nan
    step = np.ones_like(angle)
    step[..., 0, :] = np.nan
    token = (*run, TOKENS)
    first = np.zeros(token, np.int8)
    first[..., 0] = 1
    phase = np.ones(token, np.int8)
    phase[..., :4] = 0
    logs = np.full(token, -1, np.float32)
    logs[..., 0] = np.nan
    values = {
        "quality": np.zeros((*token, 2), np.int8),
        "token_id": np.ones(token, np.int32),
        "top1_id": np.ones((*token, 2), np.int32),
        "phase": phase,
        "is_special": np.zeros(token, np.int8),
        "is_first": first,
        "log_probability": logs,
        "text": np.full(run, "x", dtype=object),
        "n_prompt": np.full(run, 4, np.int32),
        "n_generated": np.full(run, TOKENS - 4, np.int32),
        "stop_reason": np.full(run, "budget", dtype=object),
        "first_end_of_text": np.full(run, -1, np.int32),
        "step_length": step,
        "turning_angle": angle,
    }
    models = [
        {
            **m,
            "family": f"f{i // 2}",
            "architecture": "toy",
            "parameters": 9,
            "vocabulary": 16,
            "n_layers": 2,
            "attn_implementation": "eager",
            "source": "",
            "factors": {},
        }
        for i, m in enumerate(inputs()["models"])
    ]
    prompts = [
        {
            "id": f"p{(7 * i) % n:02d}",
            "text": f"t{i}",
            "category": f"c{i // per}",
            "template": "",
            "split": "panel",
            "answers": [],
            "distractors": [],
        }
        for i in range(n)
    ]
    drawn = [
        {"id": f"s{i}", "seed": i // 2, "temperature": (0.7, 1.0)[i % 2], "budget": 48, "mode": "generated"}
        for i in range(samples)
    ]
    return build(
        models=models,
        prompts=prompts,
        samples=drawn,
        n_tokens=TOKENS,
        n_layers=2,
        values=values,
        attrs={"inputs": canonical_json(inputs(per)).decode()},
    )


@pytest.fixture
def study(tmp_path):
    source = study_path("conditional_signatures")
    folder = tmp_path / "conditional_signatures"
    folder.mkdir()
    for name in ("plan.yaml", "analysis.py", "by_model.py", "null_z.py", "signature.py", "__init__.py"):
        shutil.copy(source / name, folder / name)
    plan = folder / "plan.yaml"  # the multiverses have a test of their own
    text = plan.read_text(encoding="utf-8")
    at, end = text.index("\nrobustness:\n"), text.index("\nexploratory:\n")
    text = text[:at] + text[end:]
    plan.write_text(text, encoding="utf-8")
    lock_study(folder, "toy", inputs())
    return folder


def test_ranges_run_from_half_to_twice_the_odds(plan):
    for name, share in (("A1", 0.07), ("A2", 0.17), ("A3", 0.76)):
        odds = share / (1 - share)
        wanted = [round(k * odds / (1 + k * odds), 3) for k in (0.5, 2)]
        assert plan["hypotheses"][name]["parts"][0]["range"] == wanted


def test_the_plan_says_what_the_claims_need(plan):
    assert plan["families"] == {
        name: {"alpha": 0.05, "correction": "bonferroni"} for name in ("main", "normalisation")
    }
    assert [h["family"] for h in plan["hypotheses"].values()] == ["main"] * 3 + ["normalisation"]
    quantities = [h["parts"][0]["estimand"]["quantity"] for h in plan["hypotheses"].values()]
    assert quantities == ["share.model", "share.category", "share.residual", "difference"]
    assert all(len(h["does_not_show"]) >= 2 for h in plan["hypotheses"].values())
    outcome = plan["analyses"]["S1"]["outcome"]
    assert (outcome["metric"], outcome["scale"], outcome["phase"]) == ("ratio_norm@1", "log", "generated")
    assert isinstance(outcome["tokens"], int)  # equal token counts
    gates = [g for g in plan["gates"].values() if g["check"] == "min_samples"]
    assert {h: g["fails"] for g in gates for h in g["hypotheses"]} == {
        "A1": "inadmissible",
        "A2": "inadmissible",
        "A3": "not_testable",
    }
    assert all(x["seed"] for x in plan["exploratory"].values())


def test_the_planted_outcome_is_what_was_planted():
    ds = planted(0.01, 0.02, 0.04)
    y = run_metric(ds, OUTCOME).values
    assert np.isfinite(y).all()
    assert np.var(y.mean(axis=(1, 2)), ddof=1) == pytest.approx(0.01, abs=0.002)
    assert np.var(y - y.mean(axis=2, keepdims=True)) == pytest.approx(0.04 * 3 / 4, rel=0.1)


def test_claims_fall_where_the_shares_are_far_off(study, tmp_path):
    data = save(planted(0.05, 0.0005, 0.03), tmp_path / "panel.nc")
    found = run_study(study, data, tmp_path / "out")
    assert found.stamp == "registered"
    assert found.outcomes["A1"] == ("rejected", "out_of_range")
    assert found.outcomes["A2"] == ("rejected", "out_of_range")
    assert found.outcomes["A3"] == ("rejected", "out_of_range")
    # One spike over constant steps: the MAD is zero, no clipped value exists; A1 to A3 lose no prompt by it.
    assert found.outcomes["A5"] == ("not_run", "analysis_failed")
    assert found.decisions["A1"].estimates[0].value > 0.5


def test_claims_are_supported_where_they_hold(study, tmp_path):
    lock_study(study, "large", inputs(12))
    data = save(planted(0.07 / 9, 0.17 / 9, 0.76 / 9, per=12), tmp_path / "panel.nc")
    found = run_study(study, data, tmp_path / "out")
    a1, a2, a3 = (found.decisions[h].estimates[0] for h in ("A1", "A2", "A3"))
    assert {found.outcomes[h] for h in ("A1", "A2", "A3")} == {("supported", "supported_by_rule")}
    assert a2.low < 0.17 < a2.high
    assert a3.low < 0.76 < a3.high and a1.low < 0.07 < a1.high


def jittered(spikes, spread=0.005, seed=5):
    """Make runs of uneven steps, some of them with a spike that a clip of 3.5 takes away, by model."""
    ds = planted(0.0, 0.0, 0.0001)
    rng = np.random.default_rng(seed)
    angle = ds["turning_angle"].values
    even = rng.normal(0.02, spread, angle.shape).clip(0.005, 0.033).astype(np.float32)
    even = np.where(np.isnan(angle), np.nan, even)
    for i, share in enumerate(spikes):
        hit = rng.random(even.shape[1:3]) < share
        even[i, hit, 20, :] = 0.055
    ds["turning_angle"].values = even
    return ds


def test_a5_is_supported_where_clipping_takes_away_what_tells_models_apart(study, tmp_path):
    data = save(jittered([0.9, 0.9, 0.1, 0.1, 0.1, 0.1]), tmp_path / "panel.nc")
    found = run_study(study, data, tmp_path / "out")
    e = found.decisions["A5"].estimates[0]
    assert e.key == "difference" and found.outcomes["A5"] == ("supported", "supported_by_rule")
    assert e.low > 0.1


def test_a5_is_not_testable_where_all_runs_have_one_regime(study, tmp_path):
    data = save(jittered([0.0] * 6, spread=0.001), tmp_path / "panel.nc")
    found = run_study(study, data, tmp_path / "out")
    assert found.outcomes["A5"] == ("not_testable", "no_interval")


def test_the_multiverses_cross_what_the_plan_says(plan):
    sizes = {}
    for name in ("A1", "A2", "A3", "A5"):
        of = plan["robustness"][name]["dimensions"]
        sizes[name] = int(np.prod([len(d["options"]) for d in of.values() if d["type"] == "equivalent"]))
    assert sizes == {"A1": 24, "A2": 24, "A3": 24, "A5": 9}
    assert plan["robustness"]["A1"] == plan["robustness"]["A2"] == plan["robustness"]["A3"]


def test_the_amended_lock_verifies_and_leaves_the_first_claims_as_they_were():
    folder = study_path("conditional_signatures")
    found = verify_study(folder)
    assert found["head"] == "holds" and {x["name"] for x in found["locks"]} == {"demo", "demo-2"}
    first, second = (load_lock(folder / f"{n}.lock.json") for n in ("demo", "demo-2"))
    stated = amendment(second)
    assert second.parent == first.sha256 and stated["timing"] == "outcomes"
    assert {h: v["how"] for h, v in stated["hypotheses"].items()} == {
        **dict.fromkeys(("A1", "A2", "A3"), "unchanged"),
        "A5": "added",
    }
    assert second.content["plan_sha256"] == load_plan(folder).sha256
    assert find_fitting(folder, first.inputs_sha256)[0].sha256 == second.sha256


def test_with_one_sample_a_cell_a3_is_not_testable(study, tmp_path):
    data = save(planted(0.01, 0.02, 0.08, samples=1), tmp_path / "panel.nc")
    found = run_study(study, data, tmp_path / "out")
    assert found.outcomes["A3"] == ("not_testable", "one_sample_a_cell")
    assert found.outcomes["A1"] == ("inadmissible", "gate_failed")


@pytest.mark.parametrize(("runs", "admissible"), [(3, True), (60, False)])
def test_runs_too_short_for_the_outcome_are_missing_runs(plan, runs, admissible):
    ds = planted(0.05, 0.0005, 0.03)
    special = ds["is_special"].values.copy()
    special.reshape(-1, TOKENS)[:runs, 10:] = 1  # all of the first model; its outcome needs 48 tokens
    ds["is_special"].values = special
    out = Execution()
    left = leave_out(plan, ds, out)
    assert left.sizes["prompt"] == 36 - -(-runs // 4) and np.isfinite(run_metric(left, OUTCOME)).all()
    assert ("no outcome" in out.flow[1][0], out.flow[1][2]) == (True, -(-runs // 4))
    found = {state[:2] for state in out.states.values()}
    assert found == (set() if admissible else {("inadmissible", "too_much_missing")})


def test_the_unit_of_resampling_is_one_in_plan_and_analysis(study):
    file = study / "plan.yaml"
    file.write_text(re.sub(r"resampling: \w+", "resampling: model", file.read_text()))
    with pytest.raises(DynstatError, match="where data.units.resampling says 'model'"):
        load_plan(study)


def summary(ds, **change):
    from dynstat.analyses.conditional_signatures.null_z import null_z

    options = {"outcome": OUTCOME, "seed": 3, "replicates": 99, "bootstrap": 200, "alpha": 0.05} | change
    return null_z(ds, **options)


def exchangeable(seed: int = 0):
    """Make every run a draw from one pool: the length-matched null is true."""
    ds = planted(0.0, 0.0, 0.01)
    rng = np.random.default_rng(seed)
    angle = ds["turning_angle"].values
    drawn = rng.exponential(0.2, angle.shape).clip(0.001, 3).astype(np.float32)
    ds["turning_angle"].values = np.where(np.isnan(angle), np.nan, drawn)
    return ds


def test_the_null_holds_where_it_is_true():
    found = summary(exchangeable())
    shares = [e.value for k, e in found.items() if k.startswith("share_beyond")]
    # 864 runs in all; the Monte-Carlo p is at most .05 in 5 of 100 ranks.
    assert np.mean(shares) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 864))
    assert all(abs(e.value) < 0.6 for k, e in found.items() if k.startswith("median_z"))


def test_a_model_with_spikes_lies_beyond_the_null():
    ds = exchangeable()
    ds["turning_angle"].values[0, :, :, 30] = 3.0
    found = summary(ds)
    assert found["share_beyond.m0"].value > 0.5 and found["share_beyond.m1"].value < 0.1
    e = found["median_z.m0"]
    assert e.low <= e.value <= e.high and e.unit == "prompt" and e.n == {"runs": 144, "prompts": 36}


def test_the_interval_belongs_to_prompts_in_whatever_order_they_stand():
    """One prompt carries all the variation: its spread must not move to another when rows are sorted."""
    from dynstat.analyses.conditional_signatures.by_model import of_values

    values = np.zeros((3, 2))
    values[2] = 1.0
    weights = np.array([[0, 0, 3], [3, 0, 0], [1, 1, 1]])
    e = of_values("k", values, np.mean, weights, method="test@1", seed=0)
    assert sorted(e.pivot.draws) == pytest.approx([0.0, 1 / 3, 1.0])
    by_name, shuffled = exchangeable(), exchangeable()
    order = np.argsort(by_name["prompt"].values)
    shuffled = shuffled.isel(prompt=order)
    # The pool and the runs are the same; only the draws of the null differ in order.
    a, b = summary(by_name), summary(shuffled)
    assert a["median_z.m0"].value == pytest.approx(b["median_z.m0"].value, abs=0.1)


def test_the_null_refuses_what_it_cannot_do():
    ds = exchangeable()
    with pytest.raises(DynstatError) as e:
        summary(ds, outcome={"metric": "flux@1"})
    assert e.value.code == "Y002"
    with pytest.raises(DynstatError) as e:
        summary(ds.drop_vars("turning_angle"))
    assert e.value.code == "D103"
    ds["turning_angle"].values[1] = np.nan
    with pytest.raises(DynstatError) as e:
        summary(ds)
    assert e.value.code == "S402"


def test_the_signature_is_what_the_library_computes_and_its_shares_are_whole():
    from dynstat.analyses.conditional_signatures.signature import signature
    from dynstat.metrics.labelled import gd_ratio, state_shares, states
    from dynstat.metrics.states import STATES, Thresholds

    ds = exchangeable()
    rng = np.random.default_rng(4)
    shape = ds["turning_angle"].shape
    p1 = rng.uniform(0.2, 0.9, shape)
    for name, values in {
        "entropy": rng.uniform(0.1, np.log(16) - 0.1, shape),
        "top1_probability": p1,
        "top2_probability": p1 * rng.uniform(0.1, 1.0, shape),
        "synchronisation": rng.uniform(0.0, 1.0, shape),
    }.items():
        ds[name] = (ds["turning_angle"].dims, values.astype(np.float32))
    cut = {"turbulence": 0.2, "branching": 0.6, "synchronisation": 0.4}
    found = signature(ds, outcome=OUTCOME, seed=1, bootstrap=99, **cut)
    shares = state_shares(ds, states(ds, Thresholds.fixed(*cut.values())))
    for i, model in enumerate(ds["model"].values):
        assert found[f"gd_ratio.{model}"].value == pytest.approx(float(gd_ratio(ds)[i]), rel=1e-9)
        mine = [found[f"state.{s}.{model}"] for s in STATES]
        assert [e.value for e in mine] == pytest.approx(shares.values[i].tolist(), rel=1e-9)
        assert sum(e.value for e in mine) == pytest.approx(1.0)
        assert all(e.low <= e.value <= e.high for e in mine)
        assert found[f"ratio_norm.{model}"].value >= 1
