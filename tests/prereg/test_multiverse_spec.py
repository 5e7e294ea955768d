"""Which universes a plan declares: counted by products, kept apart by type, never silently fewer."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.prereg.multiverse_spec import dimensions_of, label, universes_of

OUTCOME = {"metric": "ratio_norm@1", "scale": "log", "alignment": "causal", "tokens": 48, "first": "drop"}


def plan_with(dimensions, parts=("S1",), **more):
    return {
        "data": {"token_policy": {"first": "drop", "special": "drop"}, "missing": {"max_fraction": 0.05}},
        "families": {"main": {"alpha": 0.05, "correction": "bonferroni"}},
        "analyses": {
            a: {"method": "m@1", "outcome": dict(OUTCOME), "options": {"unit": "prompt"}}
            for a in ("S1", "S2")
        },
        "hypotheses": {"H1": {"parts": [{"estimand": {"analysis": a, "quantity": "q"}} for a in parts]}},
        "robustness": {"H1": {"dimensions": dimensions, **more}},
    }


def dimension(pointer, options, kind="equivalent"):
    return {"pointer": pointer, "type": kind, "options": options, "reason": "a reason"}


SCALE = dimension("outcome.scale", ["raw", "log"])
ALIGNMENT = dimension("outcome.alignment", ["causal", "centred", "incoming"])
TOKENS = dimension("/analyses/S1/outcome/tokens", [48, 24], "uncertain")
UNIT = dimension("options.unit", ["prompt", "template", "model"], "non_equivalent")


def test_equivalent_are_crossed_uncertain_kept_apart_and_the_rest_stand_beside():
    plan = plan_with({"scale": SCALE, "alignment": ALIGNMENT, "tokens": TOKENS, "unit": UNIT})
    found = universes_of(plan, "H1")
    # 2 x 3 crossed, for each of 2 token counts; two options of the unit beside.
    assert [u.multiverse for u in found.universes] == [1] * 6 + [2] * 6 + [0] * 2
    assert found.possible == 14 and found.left_out == ()
    first = found.universes[0]
    assert (first.id, first.role) == ("u1", "registered")
    assert first.choices == {"scale": "log", "alignment": "causal", "tokens": 48, "unit": "prompt"}
    assert sum(u.role == "registered" for u in found.universes) == 1
    for u in found.universes:
        assert u.choices["unit"] == "prompt" if u.multiverse else u.role == "beside"
        assert u.choices["tokens"] == {0: 48, 1: 48, 2: 24}[u.multiverse]
    for u in found.universes[-2:]:
        assert {k: v for k, v in u.choices.items() if k != "unit"} == {
            k: v for k, v in first.choices.items() if k != "unit"
        }
    assert len({tuple(sorted(u.choices.items())) for u in found.universes}) == 14


def test_the_order_in_which_a_plan_is_written_numbers_nothing():
    dims = {"scale": SCALE, "alignment": ALIGNMENT, "tokens": TOKENS, "unit": UNIT}
    found = [universes_of(plan_with(dict(d)), "H1") for d in (dims.items(), reversed(dims.items()))]
    assert found[0] == found[1]


def test_a_universe_changes_its_places_and_nothing_else():
    plan = plan_with({"scale": SCALE, "tokens": TOKENS}, parts=("S1", "S2"))
    declared = universes_of(plan, "H1")
    assert declared.plan_of(plan, declared.universes[0]) == plan
    for u in declared.universes:
        changed = declared.plan_of(plan, u)
        # A path without a slash leads into every analysis of the claim, a pointer to one place.
        for a in ("S1", "S2"):
            assert changed["analyses"][a]["outcome"]["scale"] == u.choices["scale"]
        assert changed["analyses"]["S1"]["outcome"]["tokens"] == u.choices["tokens"]
        assert changed["analyses"]["S2"]["outcome"]["tokens"] == 48
        changed["analyses"] = plan["analyses"]
        assert changed == plan
    assert plan["analyses"]["S1"]["outcome"] == OUTCOME


def test_the_token_policy_reaches_the_outcome():
    plan = plan_with({"first": dimension("/data/token_policy/first", ["drop", "keep"])})
    other = universes_of(plan, "H1").universes[1]
    changed = universes_of(plan, "H1").plan_of(plan, other)
    assert changed["data"]["token_policy"]["first"] == "keep"
    assert changed["analyses"]["S1"]["outcome"]["first"] == "keep"
    assert changed["analyses"]["S2"]["outcome"]["first"] == "drop"


def test_the_registered_option_belongs_without_being_listed():
    plan = plan_with({"scale": dimension("outcome.scale", ["raw"])})
    assert dimensions_of(plan, "H1")[0].options == ("log", "raw")


def test_a_constraint_leaves_out_what_all_its_words_meet_and_says_so():
    constraint = {"leave_out": {"scale": "raw", "alignment": ["centred", "incoming"]}, "reason": "no sense"}
    plan = plan_with({"scale": SCALE, "alignment": ALIGNMENT}, constraints=[constraint])
    found = universes_of(plan, "H1")
    assert len(found.universes) == 4 and found.possible == 4
    assert [(c["scale"], c["alignment"], why) for c, why in found.left_out] == [
        ("raw", "centred", "no sense"),
        ("raw", "incoming", "no sense"),
    ]


def test_a_sample_is_declared_seeded_and_keeps_the_registered():
    dims = {"scale": SCALE, "alignment": ALIGNMENT, "tokens": TOKENS, "unit": UNIT}
    one, same, other = (
        universes_of(plan_with(dims, limit={"n": 5, "seed": seed}), "H1") for seed in (1, 1, 2)
    )
    assert len(one.universes) == 5 + 2 and one.possible == 14
    assert one.universes == same.universes != other.universes
    for found in (one, other):
        assert found.universes[0].role == "registered"
    every = universes_of(plan_with(dims, limit={"n": 500, "seed": 1}), "H1")
    assert every.universes == universes_of(plan_with(dims), "H1").universes


@given(
    st.lists(
        st.tuples(st.sampled_from(("equivalent", "uncertain", "non_equivalent")), st.integers(2, 4)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None)
def test_the_number_of_universes_is_that_of_the_products(kinds):
    places = (
        "/data/missing/max_fraction",
        "/analyses/S2/outcome/tokens",
        "/analyses/S1/outcome/tokens",
        "/data/token_policy/special",
    )
    dims = {f"d{i}": dimension(places[i], [*range(100, 99 + n)], kind) for i, (kind, n) in enumerate(kinds)}
    found = universes_of(plan_with(dims), "H1")
    size = {t: [n for kind, n in kinds if kind == t] for t in ("equivalent", "uncertain", "non_equivalent")}
    multiverses, each = 1, 1
    for n in size["uncertain"]:
        multiverses *= n
    for n in size["equivalent"]:
        each *= n
    assert [sum(u.multiverse == m for u in found.universes) for m in range(1, multiverses + 1)] == [
        each
    ] * multiverses
    assert sum(u.role == "beside" for u in found.universes) == sum(n - 1 for n in size["non_equivalent"])
    assert found.universes[0].role == "registered" and found.universes[0].multiverse == 1
    combos = itertools.product(*(range(n) for kind, n in kinds if kind != "non_equivalent"))
    assert len({tuple(sorted(u.choices.items())) for u in found.universes if u.multiverse}) == len(
        list(combos)
    )


@pytest.mark.parametrize(
    ("dims", "more", "what"),
    [
        ({"d": dimension("/hypotheses/H1/parts", [1])}, {}, "universes keep hypotheses"),
        ({"d": dimension("/families/main/alpha", [0.1])}, {}, "universes keep families"),
        ({"d": dimension("outcome.scael", ["raw"])}, {}, "nothing stands there"),
        ({"d": dimension("outcome.scale", ["log"])}, {}, "no option beside"),
        ({"d": dimension("outcome.scale", ["raw", "raw"])}, {}, "stands twice"),
        ({"d": dimension("outcome.scale", ["raw"], "perhaps")}, {}, "no such type"),
        ({"estimate": SCALE}, {}, "column of the table"),
        ({"a b": SCALE}, {}, "a name is letters"),
        ({"d": SCALE, "e": dimension("/analyses/S1/outcome/scale", ["raw"])}, {}, "varies the same place"),
        ({"d": SCALE, "e": dimension("outcome", [{"metric": "cv@1"}])}, {}, "varies the same place"),
        ({}, {}, "needs a dimension"),
        ({"d": SCALE}, {"constraints": [{"leave_out": {"d": "log"}}]}, "leaves out the registered"),
        ({"d": SCALE}, {"constraints": [{"leave_out": {"x": "log"}}]}, "no such dimension"),
        ({"d": SCALE}, {"constraints": [{"leave_out": {"d": "ln"}}]}, "no such option"),
        (
            {
                "d": dimension("outcome.tokens", [*range(1, 90)]),
                "e": dimension("/data/missing/max_fraction", [*range(1, 90)]),
            },
            {},
            "too many",
        ),
    ],
)
def test_what_cannot_hold_is_refused(dims, more, what):
    with pytest.raises(DynstatError, match=f"P301.*{what}"):
        universes_of(plan_with(dims, **more), "H1")


def test_analyses_that_differ_need_a_pointer():
    plan = plan_with({"scale": SCALE}, parts=("S1", "S2"))
    plan["analyses"]["S2"]["outcome"]["scale"] = "raw"
    with pytest.raises(DynstatError, match="differ in this place"):
        dimensions_of(plan, "H1")
    with pytest.raises(DynstatError, match="declares no multiverse"):
        dimensions_of(plan, "H2")


def test_labels():
    assert [label(v) for v in ("log", True, None, 48, 0.5)] == ["log", "true", "null", "48", "0.5"]


def test_universes_are_counted_without_numpy():
    code = "import sys, dynstat.prereg.multiverse_spec; assert not {'numpy', 'pandas'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
