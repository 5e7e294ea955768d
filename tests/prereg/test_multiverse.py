"""The registered universe is the decision, the others follow from their plans one by one, none is lost."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from dynstat.dataset import build as build_module
from dynstat.plotting.specification_curve import describe_curve
from dynstat.prereg.contingencies import analyse
from dynstat.prereg.execute import execute
from dynstat.prereg.lock import make_lock
from dynstat.prereg.multiverse import rows, run_multiverse, run_multiverses
from dynstat.prereg.multiverse_rows import drawn_from
from dynstat.prereg.plan import load_plan

from .conftest import PLAN, make_data, make_inputs

pytestmark = pytest.mark.filterwarnings("ignore::dynstat.errors.DynstatWarning")

TOY = """
robustness:
  H1:
    dimensions:
      shift: {pointer: options.shift, type: equivalent, options: [0.0, -1.2], reason: where zero lies}
      kind: {pointer: options.kind, type: uncertain, options: [plain, trimmed], reason: of the mean}
      fails: {pointer: options.break_it, type: non_equivalent, options: [true], reason: what fails is shown}
  H2: {dimensions: {shift: {pointer: options.shift, type: equivalent, options: [-1.5, 0.0], reason: zero}}}
  H3: {dimensions: {shift: {pointer: options.shift, type: equivalent, options: [-3.0, 0.0], reason: zero}}}
"""


@pytest.fixture
def toy(study):
    (study / "plan.yaml").write_text(PLAN + TOY, encoding="utf-8")
    return load_plan(study).content


def test_closed_form_of_a_shift(toy) -> None:
    ds = make_data(make_inputs())
    m = run_multiverse(toy, "H1", ds)
    mean = float(ds["entropy"].mean())
    table = m.table.set_index("universe")
    assert list(table["role"]) == ["registered", "counted", "separate", "separate", "beside"]
    np.testing.assert_allclose(table["estimate"].iloc[:4], [mean, mean - 1.2] * 2, rtol=1e-6)
    # The threshold is one nat: two is above it, 0.8 is not.
    assert list(table["outcome"]) == ["supported", "rejected", "supported", "rejected", ""]
    assert list(table["agrees"]) == [True, False, True, False, False]
    assert m.share_agree == 0.5
    broken = table.loc["u5"]
    assert (broken["state"], broken["why"]) == ("errored", "S402 model cannot be fitted")
    assert np.isnan(broken["estimate"])
    spread = m.by_choice.set_index("dimension")["share"]
    np.testing.assert_allclose(spread[["shift", "kind", "rest"]], [1, 0, 0], atol=1e-12)
    several = m.multiverses.set_index("multiverse")
    assert list(several["n"]) == [2, 2, 1] and several.loc[0, "errored"] == 1
    assert several.loc[2, "choices"] == "kind = trimmed"
    assert "u5 errored: S402 model cannot be fitted" in str(m)
    assert m.glance().loc[0, "share_agree"] == 0.5 and m.tidy().equals(m.table)
    assert "1 errored" in m.describe() and m.plot().axes


@pytest.mark.parametrize("correction", ["bonferroni", "holm", "bh", "none"])
@pytest.mark.parametrize("level", [2.0, 1.02, 0.5])
def test_the_registered_universe_is_the_decision(study, correction: str, level: float) -> None:
    from dynstat.inference.decision import decide
    from dynstat.inference.family_tests import FamilyTests, verdict_of

    reason = ", reason: one by one" if correction == "none" else ""
    text = PLAN.replace("alpha: 0.05}", f"alpha: 0.05, correction: {correction}{reason}}}")
    (study / "plan.yaml").write_text(text + TOY, encoding="utf-8")
    plan = load_plan(study).content
    ds = make_data(make_inputs(), level)
    run = execute(plan, ds)
    lock = make_lock(load_plan(study), "demo", make_inputs(), folder=study)
    given = {
        h: tuple(run.estimates[p["estimand"]["analysis"]][p["estimand"]["quantity"]] for p in c["parts"])
        for h, c in plan["hypotheses"].items()
    }
    tests = FamilyTests(given, lock=lock)
    for registered in (None, run):
        found = run_multiverses(plan, ds, registered=registered)
        for h, m in found.items():
            expected = verdict_of(plan["hypotheses"][h], given[h], tests.adjusted[h])
            own = m.registered
            assert (own.outcome, own.reason_code) == (expected.outcome, expected.reason_code)
            # To the last bit what the registered analysis gave.
            assert [e.value for e in own.estimates] == [e.value for e in given[h]]
            assert m.table["role"].iloc[0] == "registered" and m.table["agrees"].iloc[0]
            if correction == "bonferroni":
                assert decide(lock, h, given[h]).outcome == m.registered.outcome


PANEL = """\
dynstat: "prereg/1"
id: shares
title: Shares of a small panel
authors: [{name: A. Person}]
registration:
  purpose: confirmatory
  access: {level: none, note: none}
  prior_knowledge: none
data:
  schema: dynstat-data-1
  prompts: {file: prompts.csv, split: panel}
  pilot: {file: prompts.csv, split: pilot}
  units: {inference: prompt, resampling: prompt}
families:
  main: {alpha: 0.05}
gates:
  G1: {check: min_units, unit: prompt, n: 6}
analyses:
  S1:
    method: variance.shares@1
    outcome: {metric: ratio_norm@1, tokens: 6, scale: log}
    options: {population: none, population_replicates: 100}
    seed: 7
hypotheses:
  A1:
    claim: The model explains a part.
    role: primary
    family: main
    estimand: {analysis: S1, quantity: share.model}
    rule: in_range
    range: [0.05, 0.9]
    sesoi: {scale: variance_share, reason: "a part"}
    if_supported: A part.
    if_rejected: Nearly nothing, or nearly all.
    does_not_show: ["why"]
robustness:
  A1:
    dimensions:
      scale: {pointer: outcome.scale, type: equivalent, options: [log, raw], reason: both are used}
      alignment: {pointer: outcome.alignment, type: equivalent, options: [causal, centred], reason: both}
      normalisation:
        {pointer: outcome.normalisation, type: uncertain, options: [RAW, CLIPPED_MAD], reason: bursts}
      tokens: {pointer: outcome.tokens, type: equivalent, options: [6, 8, 500], reason: how much is read}
      metric:
        pointer: outcome
        type: non_equivalent
        reason: other outcomes, shown beside
        options:
          - {metric: run_mean@1, of: entropy}
          - {metric: run_mean@1, of: entropy__no_norm}
    constraints:
      - {leave_out: {alignment: centred, scale: raw}, reason: to have one}
"""


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(11)
    shape = (3, 9, 2, 14, 2)
    run, token = shape[:3], shape[:4]
    phase = np.broadcast_to((np.arange(14) > 2).astype(np.int8), token).copy()
    strong = 1 + np.arange(3)[:, None, None, None, None] * 0.6
    angle = np.minimum(rng.gamma(2, 0.2 * strong, shape), 3.0).astype(np.float32)
    step = np.minimum(rng.gamma(2, 0.2, shape), 1.9).astype(np.float32)
    step[..., :1, :], angle[..., :2, :] = np.nan, np.nan
    first = np.zeros(token, np.int8)
    first[..., 0] = 1
    logp = np.full(token, -1.0, np.float32)
    logp[..., 0] = np.nan
    values = {
        "quality": np.zeros(shape, np.int8),
        "token_id": np.ones(token, np.int32),
        "top1_id": np.ones(shape, np.int32),
        "phase": phase,
        "is_special": np.zeros(token, np.int8),
        "is_first": first,
        "log_probability": logp,
        "text": np.full(run, "x", dtype=object),
        "n_prompt": np.full(run, 3, np.int32),
        "n_generated": np.full(run, 11, np.int32),
        "stop_reason": np.full(run, "budget", dtype=object),
        "first_end_of_text": np.full(run, -1, np.int32),
        "entropy": rng.gamma(2, 1, shape).astype(np.float32),
        "step_length": step,
        "turning_angle": angle,
    }
    models = [
        {"id": f"m{i}", "revision": "local", "weights_sha256": "a" * 64, "tokenizer_sha256": "b" * 64,
         "dtype": "float32", "family": "toy", "architecture": "toy", "parameters": 1, "vocabulary": 16,
         "n_layers": 2, "attn_implementation": "eager", "source": "here", "factors": {}}
        for i in range(3)
    ]  # fmt: skip
    prompts = [
        {"id": f"p{i}", "text": str(i), "category": f"c{i % 3}", "template": f"t{i}", "split": "panel",
         "answers": [], "distractors": []}
        for i in range(9)
    ]  # fmt: skip
    samples = [
        {"id": f"s{i}", "seed": i, "temperature": 1.0, "budget": 11, "mode": "generated"} for i in range(2)
    ]
    return build_module.build(
        models=models, prompts=prompts, samples=samples, n_tokens=14, n_layers=2, values=values
    )


@pytest.fixture
def plan(study):
    (study / "plan.yaml").write_text(PANEL, encoding="utf-8")
    return load_plan(study).content


def test_every_universe_is_its_own_plan_run_alone(plan, panel) -> None:
    m = run_multiverse(plan, "A1", panel)
    # 2 x 2 x 3 less the combination left out, in two multiverses, and two outcomes beside.
    assert [len(m.table), len(m.declared.left_out), m.declared.possible] == [20, 6, 20]
    alone = {}
    for u in m.declared.universes:
        spec = m.declared.plan_of(plan, u)["analyses"]["S1"]
        row = m.table.set_index("universe").loc[u.id]
        if u.role != "beside":
            assert {spec["outcome"][k] for k in ("scale", "alignment", "normalisation", "tokens")} == {
                u.choices[k] for k in ("scale", "alignment", "normalisation", "tokens")
            }
        if row["state"] != "run":
            continue
        alone[u.id] = analyse(spec, panel).estimates["share.model"]
        for name, key in (("estimate", "value"), ("low", "low"), ("high", "high")):
            assert row[name] == pytest.approx(getattr(alone[u.id], key), rel=1e-8, abs=1e-10)
    assert list(m.table["metric"].iloc[[0, -2, -1]]) == [
        "metric ratio_norm@1, tokens 6",
        "metric run_mean@1, tokens all, of entropy",
        "metric run_mean@1, tokens all, of entropy__no_norm",
    ]
    lost = m.table[m.table["state"] != "run"]
    assert set(lost["why"].str.slice(0, 9)) == {"no prompt", "D103 the "}
    assert (lost["tokens"][lost["role"] != "beside"] == "500").all() and (lost["state"] == "missing").all()
    assert len({e.value for e in alone.values()}) > 6
    assert len(lost) + len(alone) == 20 and lost["outcome"].eq("").all()
    first = m.multiverses.iloc[0]
    assert (first["n"], first["run"], first["missing"]) == (9, 6, 3)
    assert m.share_agree == first["agree"] / 6


def test_a_gate_stands_in_place_of_an_outcome(plan, panel) -> None:
    # Three prompts hold a run too short for eight tokens and long enough for six.
    ds = panel.copy(deep=True)
    ds["phase"][0, :3, 0, 10:] = 0
    m = run_multiverse(plan, "A1", ds).table
    wide = m[(m["tokens"] == "8") & (m["role"] != "beside")]
    assert set(wide["outcome"]) == {"inadmissible"} and wide["estimate"].isna().all()
    assert wide["why"].str.contains("of the runs are missing").all()
    assert m[m["tokens"] == "6"]["estimate"].notna().sum() == 7
    changed = json.loads(json.dumps(plan))
    changed["data"]["missing"]["max_fraction"] = 1.0
    changed["gates"]["G1"]["n"] = 7
    m = run_multiverse(changed, "A1", ds).table
    assert set(m[(m["tokens"] == "8") & (m["role"] != "beside")]["why"]) == {
        "gate G1: at least 7 prompt labels, found 6"
    }


def test_workers_change_nothing(plan, panel) -> None:
    seen = []
    one = run_multiverse(plan, "A1", panel, progress=lambda done, total, what: seen.append((done, total)))
    two = run_multiverse(plan, "A1", panel, jobs=2)
    pd.testing.assert_frame_equal(one.table, two.table, check_exact=True)
    assert seen[-1] == (20, 20) and seen == sorted(seen)


def test_rows_hold_the_figure_and_no_decision(plan, panel) -> None:
    m = run_multiverse(plan, "A1", panel)
    made = rows(m)
    values = {r["key"]: r["raw"] for r in made}
    assert len(values) == len(made) and all(k.startswith("multiverse.A1.") for k in values)
    # The runner reads every key that ends so as a decision of a hypothesis.
    assert not [k for k in values if k.endswith(".decision")]
    assert describe_curve(**drawn_from(values, "A1")) == m.describe()
    assert values["multiverse.A1.n"] == 9 and values["multiverse.A1.share_agree"] == m.share_agree
    assert values["multiverse.A1.u1.choice.scale"] == "log"
    assert (
        values["multiverse.A1.variance.tokens"] == m.by_choice.set_index("dimension").loc["tokens", "share"]
    )
    assert {r["purpose"] for r in made} == {"primary"}
    hidden = {r["key"] for r in rows(m, exploratory=True)}
    assert not [k for k in hidden if k.endswith((".outcome", ".reason_code", ".agree", ".share_agree"))]
    assert "multiverse.A1.u1.estimate" in hidden
    json.dumps(made, allow_nan=False)


def test_hypotheses_share_what_they_have_in_common(plan, panel, monkeypatch) -> None:
    from dynstat.prereg import multiverse_run

    both = json.loads(json.dumps(plan))
    both["hypotheses"]["A2"] = {**both["hypotheses"]["A1"], "order": 2}
    both["robustness"]["A2"] = both["robustness"]["A1"]
    calls = []
    real = multiverse_run._make
    monkeypatch.setattr(multiverse_run, "_make", lambda *a: calls.append(1) or real(*a))
    found = run_multiverses(both, panel)
    assert len(calls) == 20
    pd.testing.assert_frame_equal(found["A1"].table, found["A2"].table)


def test_only_shares_of_the_panel_wait() -> None:
    from dynstat.prereg.multiverse_run import waiting_terms

    spec = {"method": "variance.shares@1", "outcome": {"metric": "x"}, "options": {}}
    assert waiting_terms(spec, {"share.model", "share.residual"}) == ("model", "residual")
    assert not waiting_terms(spec, {"share.model", "population.share.model"})
    assert not waiting_terms(spec | {"on_failure": [{"when": "singular"}]}, {"share.model"})
    assert not waiting_terms(spec | {"method": "markov@1"}, {"share.model"})
