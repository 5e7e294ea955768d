"""Contingencies, families, multiverses, power: what a plan may add, and what each addition must satisfy."""

from __future__ import annotations

import re

import pytest

from dynstat.errors import DynstatError
from dynstat.prereg.plan import load_plan, named_metrics, parse_plan
from dynstat.registry import METHODS, METRICS, Method, Option

SHARES = """\
dynstat: "prereg/1"
id: shares
title: Shares
authors: [{name: A. Person}]
registration:
  purpose: confirmatory
  access: {level: metadata, note: "prompts are known"}
  prior_knowledge: none
data:
  schema: dynstat-data-1
  prompts: {file: prompts.csv, split: panel}
  pilot: {file: prompts.csv, split: pilot}
  units: {inference: prompt, resampling: prompt}
families:
  main: {alpha: 0.05}
  late: {alpha: 0.05}
analyses:
  S1:
    method: variance.shares@1
    outcome: {metric: ratio_norm@1, scale: log}
    on_failure:
      - {when: singular, do: drop_term, term: (1|model:category), reason: "the smallest part"}
      - {when: not_converged, do: use_options, options: {population: none}, reason: "it needs no refits"}
      - {when: singular, do: accept, reason: "a part of zero is a result"}
    expected_se: {share.model: 0.02, made: "by hand"}
    seed: 1
  S2:
    method: structure.pairs@1
    outcome: {metric: ratio_norm@1}
    options:
      also: [{metric: run_mean@1, of: entropy}]
      pairs: [[a, b]]
    seed: 2
hypotheses:
  H1: &flat
    claim: A share.
    role: primary
    family: main
    power: 0.9
    expected: {value: 0.1, reason: "the pilot"}
    estimand: {analysis: S1, quantity: share.model}
    rule: threshold
    direction: greater
    threshold: 0.05
    sesoi: {scale: variance_share, reason: "a reason"}
    if_supported: Yes.
    if_rejected: No.
    does_not_show: ["why"]
  H2:
    claim: Pairs.
    role: secondary
    family: late
    all:
      - estimand: {analysis: S2, quantity: named.frequency}
        rule: threshold
        direction: greater
        threshold: 0.95
        expected: {value: 0.99, reason: "the pilot"}
        sesoi: {scale: probability, reason: "a reason"}
      - estimand: {analysis: S2, quantity: others.frequency}
        rule: threshold
        direction: less
        threshold: 0.95
        sesoi: {scale: probability, reason: "a reason"}
    if_supported: Yes.
    if_rejected: No.
    does_not_show: ["why"]
robustness:
  H1:
    dimensions:
      scale: {pointer: outcome.scale, type: uncertain, options: [raw, log], reason: "both are read"}
      layer: {pointer: /analyses/S1/outcome/layer, type: equivalent, options: [0.5], reason: "as good"}
      unit: {pointer: options.unit, type: non_equivalent, options: [template], reason: "fewer units"}
    constraints: [{leave_out: {scale: raw, layer: 0.5}, reason: "not both"}]
    limit: {n: 100, seed: 3}
""".replace(" &flat", "")


def found(old: str, new: str, text: str = SHARES) -> list[str]:
    assert old in text
    with pytest.raises(DynstatError) as e:
        parse_plan(text.replace(old, new, 1))
    assert e.value.code == "P301", e.value
    return list(e.value.problems)


def test_new_keys_stand_in_the_expanded_plan():
    plan = parse_plan(SHARES).content
    assert plan["hypotheses"]["H1"]["power"] == 0.9
    assert plan["hypotheses"]["H1"]["parts"][0]["expected"]["value"] == 0.1
    assert plan["hypotheses"]["H2"]["parts"][0]["expected"]["value"] == 0.99
    rules = plan["analyses"]["S1"]["on_failure"]
    assert rules[0] == {
        "when": "singular",
        "do": "drop_term",
        "reason": "the smallest part",
        "term": "model:category",
    }
    assert rules[1]["options"] == {"population": "none"}
    assert plan["analyses"]["S1"]["expected_se"] == {"share.model": 0.02, "made": "by hand"}
    assert plan["robustness"]["H1"]["dimensions"]["scale"]["options"] == ["raw", "log"]
    assert plan["robustness"]["H1"]["limit"] == {"n": 100, "seed": 3}


def test_a_plan_without_the_new_keys_has_none_of_them(study):
    plan = load_plan(study).content
    assert "robustness" not in plan and set(plan["families"]["main"]) == {"alpha", "correction"}
    assert set(plan["analyses"]["S1"]) == {"method", "outcome", "options", "seed"}
    for claim in plan["hypotheses"].values():
        assert "power" not in claim and all("expected" not in part for part in claim["parts"])


def test_metrics_in_options_are_named():
    plan = parse_plan(SHARES).content
    assert named_metrics(plan) == ["ratio_norm@1", "run_mean@1"]
    assert plan["analyses"]["S2"]["options"]["also"][0]["of"] == "entropy"
    free = re.sub(r" +(constraints|layer): .*\n", "", SHARES)
    varied = free.replace(
        "pointer: outcome.scale, type: uncertain, options: [raw, log]",
        "pointer: outcome, type: uncertain, options: [{metric: gd_ratio@1}]",
    )
    content = parse_plan(varied).content
    assert "gd_ratio@1" in named_metrics(content)
    option = content["robustness"]["H1"]["dimensions"]["scale"]["options"][0]
    assert option == {"metric": "gd_ratio@1", **METRICS.get("gd_ratio@1").fill({})}
    by_name = varied.replace("pointer: outcome,", "pointer: outcome.metric,").replace(
        "[{metric: gd_ratio@1}]", "[late_ct@1]"
    )
    try:
        assert "late_ct@1" in named_metrics(parse_plan(by_name).content)
    except DynstatError as e:  # its options need not be those of ratio_norm
        assert "no option" in str(e)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "term: (1|model:category)",
            "term: model:categry",
            r"no random term .*did you mean 'model:category'",
        ),
        ("do: drop_term, term: (1|model:category)", "do: drop_term", r"on_failure\.0: missing key 'term'"),
        ("do: drop_term", "do: drop_trem", r"on_failure\.0\.do: .*did you mean 'drop_term'"),
        ("when: singular", "when: singluar", r"on_failure\.0\.when: .*did you mean 'singular'"),
        ("options: {population: none}", "options: {populaton: none}", r"did you mean 'population'"),
        ("options: {population: none}", "options: {population: nowhere}", r"does not accept 'nowhere'"),
        ("options: {population: none}", "options: {population: auto}", r"nothing would change"),
        ("options: {population: none}", "options: {formula: y ~ (1|a}", r"options\.formula: .*never closed"),
        (
            "when: singular, do: drop_term, term: (1|model:category)",
            "when: singular, do: accept",
            r"on_failure\.2: never reached",
        ),
        (
            "when: not_converged, do: use_options, options: {population: none}",
            "when: failed, do: accept",
            r"nothing to accept",
        ),
        ("scale: log}\n", "scale: log}\n    options: {formula: 'y ~ 1 + (1|model'}\n", r"options\.formula: "),
        (
            "scale: log}\n",
            "scale: log}\n    options: {formula: 'y ~ 1 + (1|category) + (1|model:category)'}\n",
            r"H1\.estimand\.quantity: the formula has no term 'model'",
        ),
        (
            "share.model: 0.02",
            "share.modle: 0.02",
            r"expected_se\.share\.modle: .*did you mean 'share.model'",
        ),
        ("share.model: 0.02", "share.model: 0", r"expected_se\.share\.model: 0 lies outside"),
        (', made: "by hand"', "", r"expected_se: missing key 'made'"),
        ("power: 0.9", "power: 1", r"H1\.power: 1 lies outside \(0\.5, 1\)"),
        (
            'expected: {value: 0.1, reason: "the pilot"}',
            "expected: 0.1",
            r"H1\.expected: a mapping is expected",
        ),
        ('value: 0.99, reason: "the pilot"', "value: 0.99", r"H2\.all\.0\.expected: missing key 'reason'"),
        (
            "late: {alpha: 0.05}",
            "late: {alpha: 0.05, correction: none}",
            r"families\.late: correction none needs a",
        ),
        ("late: {alpha: 0.05}", "late: {alpha: 0.05, correction: hulm}", r"did you mean 'holm'"),
        (
            "late: {alpha: 0.05}",
            "late: {alpha: 0.05, order: [H2]}",
            r"late\.order: correction bonferroni has no",
        ),
        ("late: {alpha: 0.05}", "late: {alpha: 0.05, after: mian}", r"late\.after: .*did you mean 'main'"),
        (
            "late: {alpha: 0.05}",
            "late: {alpha: 0.05, correction: fixed_sequence, order: [H1]}",
            r"order\.0: no hypothesis of this family",
        ),
        ("late: {alpha: 0.05}", "late: {alpha: 0.05, after: main}", r"families\.late: after 'main'"),
        (
            "pointer: outcome.scale",
            "pointer: outcome.scael",
            r"scale\.pointer: nothing stands .*did you mean 'scale'",
        ),
        (
            "options: [raw, log]",
            "options: [raw, ln]",
            r"dimensions\.scale\.options\.1: .*does not accept 'ln'",
        ),
        ("options: [raw, log]", "options: [log]", r"no option beside the registered one"),
        ("type: uncertain", "type: uncertian", r"scale\.type: .*did you mean 'uncertain'"),
        ("/analyses/S1/outcome/layer", "/hypotheses/H1/power", r"universes keep hypotheses"),
        ("leave_out: {scale: raw", "leave_out: {skale: raw", r"robustness.*no such dimension"),
        ("robustness:\n  H1", "robustness:\n  H9", r"robustness\.H9: no hypothesis 'H9'"),
        (
            "rule: threshold\n    direction: greater\n    threshold: 0.05\n    sesoi: {scale",
            "rule: nonzero\n    sesoi: {value: 0.1, scale",
            r"H1\.rule: share\.model is never negative",
        ),
        ("pairs: [[a, b]]", "k: 2", r"analyses\.S2: structure\.pairs@1 needs the option 'pairs'"),
        ("    outcome: {metric: ratio_norm@1}\n", "", r"analyses\.S2: structure\.pairs@1 needs 'outcome'"),
        (
            "{metric: run_mean@1, of: entropy}",
            "{metric: run_maen@1}",
            r"S2\.options\.also: .*did you mean 'run_mean@1'",
        ),
    ],
)
def test_each_fault_is_named(old, new, expected):
    problems = found(old, new)
    assert any(re.search(expected, p) for p in problems), problems
    assert all(re.match(r"plan\.yaml:\d+:\d+: ", p) for p in problems)


@pytest.mark.parametrize(
    "families",
    [
        "main: {alpha: 0.05, correction: gatekeeping}\n"
        "  late: {alpha: 0.05, correction: gatekeeping, after: main}",
        "main: {alpha: 0.05, correction: holm}\n  late: {alpha: 0.01, correction: bh}",
        "main: {alpha: 0.05, correction: fixed_sequence, order: [H1]}\n"
        "  late: {alpha: 0.05, correction: none, reason: x}",
    ],
)
def test_several_families_are_allowed(families):
    text = SHARES.replace("main: {alpha: 0.05}\n  late: {alpha: 0.05}", families)
    assert set(parse_plan(text).content["families"]) == {"main", "late"}


def test_families_that_wait_for_each_other_are_refused():
    both = "{alpha: 0.05, correction: gatekeeping, after: "
    problems = found(
        "main: {alpha: 0.05}\n  late: {alpha: 0.05}", f"main: {both}late}}\n  late: {both}main}}"
    )
    assert any("circle" in p for p in problems)


def test_what_methods_need_is_told():
    """Whatever a built-in method refuses for want of an option, the check refuses before."""
    owed = {m.id: m.owed({}, None) for m in METHODS if not m.path.startswith(("drift", "dynstat_study"))}
    for name in ("variance.shares@1", "structure.stability@1", "structure.anomaly@1"):
        assert owed[name] == [f"{name} needs 'outcome'"]
    agreement = METHODS.get("structure.agreement@1")
    assert agreement.owed({"families": "family"}, {"metric": "x"}) == []
    assert agreement.owed({"families": "f", "against": {"metric": "x@1"}}, {}) == [
        "structure.agreement@1 takes the option 'families' or the option 'against', not both"
    ]
    for m in METHODS:
        if m.name.startswith("markov."):
            assert owed[m.id] == [] and "takes no outcome" in m.owed({}, {"metric": "ct@1"})[0]


def test_what_is_required_must_be_an_option():
    for method in METHODS:
        names = {name for group in method.required for name in group}
        assert names <= {"outcome", *method.options}, method.id
        assert method.takes_outcome or "outcome" not in names
    free = Method("x", 1, "a:b", "", "dynstat", "", options={"k": Option(1)})
    assert free.owed({}, None) == [] and free.owed({"k": 0}, {"metric": "a@1"}) == []


def test_show_tells_the_new_keys():
    from dynstat.prereg.show import describe_plan

    text = describe_plan(parse_plan(SHARES).content, "as it stands")
    for piece in (
        "family main: H1; 1 hypothesis, alpha .05, bonferroni, each test at .05",
        "expected: 0.1 (the pilot)",
        "with a chance of 0.9",
        "S1, if singular: drop the term model:category (the smallest part)",
        "S1, if not converged: use population none (it needs no refits)",
        "multiverse, unit (non equivalent): template: fewer units",
    ):
        assert piece in text, text
