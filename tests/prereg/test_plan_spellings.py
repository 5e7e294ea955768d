"""One plan in three spellings: YAML, TOML and JSON give one content and one hash, and errors with a place."""

from __future__ import annotations

import json
import random
import re
import runpy
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.prereg.plan import load_plan, parse_plan
from dynstat.prereg.source import parse_source
from dynstat.prereg.study import find_study, register_methods
from dynstat.strictyaml import parse_yaml

CONFTEST = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
ANALYSIS, BASE = CONFTEST["ANALYSIS"], parse_yaml(CONFTEST["PLAN"])


def to_toml(value: dict, rng: random.Random | None = None) -> str:
    """Write a plan as TOML, sections as tables or inline as `rng` has it; what is null is left out."""
    lines: list[str] = []

    def key(k: str) -> str:
        return k if re.fullmatch(r"[A-Za-z0-9_-]+", k) else json.dumps(k, ensure_ascii=False)

    def inline(v) -> str:
        if isinstance(v, dict):
            pairs = (f"{key(k)} = {inline(x)}" for k, x in v.items() if x is not None)
            return "{ " + ", ".join(pairs) + " }"
        if isinstance(v, list):
            return "[" + ", ".join(map(inline, v)) + "]"
        if isinstance(v, bool):
            return "true" if v else "false"
        return json.dumps(v, ensure_ascii=False).replace("\x7f", "\\u007f")

    def table(v: dict, at: tuple[str, ...]) -> None:
        flat = [k for k, x in v.items() if not isinstance(x, dict) or not x]
        # Hypotheses are numbered in their order, which must not change: all of a kind are written alike.
        if rng and (flat or rng.random() < 0.3):
            flat += [k for k in v if k not in flat and (not flat or rng.random() < 0.3)]
        if at:
            lines.append(f"[{'.'.join(map(key, at))}]")
        lines.extend(f"{key(k)} = {inline(v[k])}" for k in flat if v[k] is not None)
        for k, x in v.items():
            if k not in flat:
                table(x, (*at, k))

    table(value, ())
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module", autouse=True)
def method(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spelt")
    (folder / "analysis.py").write_text(ANALYSIS)
    register_methods(folder)


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).map(
    lambda s: unicodedata.normalize("NFC", f"a{s}b")
)
numbers = st.floats(0.001, 0.499) | st.sampled_from([0.05, 0.1, 1e-2, 0.2])


@st.composite
def plans(draw):
    """Variants of the plan of the toy study: texts, numbers, defaults spelt out or left out."""
    plan = json.loads(json.dumps(BASE))
    plan["title"], plan["notes"] = draw(words), draw(words)
    plan["families"]["main"]["alpha"] = draw(numbers)
    if draw(st.booleans()):
        plan["families"]["main"]["correction"] = "bonferroni"
    plan["analyses"]["S1"]["seed"] = draw(st.integers(0, 2**53 - 1))
    plan["analyses"]["S1"]["options"] = draw(
        st.fixed_dictionaries({}, optional={"shift": st.integers(-5, 5) | st.floats(-1e300, 1e300)})
    )
    claim = plan["hypotheses"]["H1"]
    claim["claim"], claim["threshold"] = draw(words), draw(st.floats(-1e6, 1e6) | st.integers(-9, 9))
    claim["does_not_show"] = draw(st.lists(words, min_size=1, max_size=3))
    if draw(st.booleans()):
        claim["power"] = draw(st.floats(0.6, 0.95))
        claim["expected"] = {"value": draw(st.integers(1, 9)), "reason": draw(words)}
    if draw(st.booleans()):
        plan["analyses"]["S1"]["expected_se"] = {"mean": draw(numbers), "made": draw(words)}
    keys = list(plan)
    random.Random(draw(st.integers(0, 99))).shuffle(keys)
    return {k: plan[k] for k in keys}


@settings(max_examples=30, deadline=None)
@given(plans(), st.randoms(use_true_random=False))
def test_three_spellings_are_one_plan(value, rng):
    first = parse_plan(json.dumps(value), "plan.json")
    spellings = {
        "plan.toml": to_toml(value, rng),
        "plan.yaml": yaml.safe_dump(value, sort_keys=False, allow_unicode=rng.random() < 0.5, width=60),
        "p/plan.json": json.dumps(value, indent=rng.choice([None, 0, 3]), ensure_ascii=rng.random() < 0.5),
    }
    for where, text in spellings.items():
        found = parse_plan(text, where)
        assert found.content == first.content and found.sha256 == first.sha256, where


@settings(max_examples=20, deadline=None)
@given(plans(), st.randoms(use_true_random=False))
def test_every_key_has_its_place(value, rng):
    for where, text in (
        ("plan.json", json.dumps(value, indent=rng.choice([None, 2]), ensure_ascii=False)),
        ("plan.toml", to_toml(value, rng)),
        ("plan.yaml", yaml.safe_dump(value, sort_keys=False, allow_unicode=True)),
    ):
        found, places = parse_source(text, where)
        lines = re.split("\n", text)
        for at, (line, column) in places.items():
            if at and isinstance(at[-1], str):
                rest = lines[line - 1][column - 1 :]
                assert rest.lstrip("\"'").startswith(at[-1]) or (where.endswith("toml") and at[0] in rest), at
        if not where.endswith("toml"):  # there the keys of an inline table have the place of what holds them
            assert {p for p in places if p and isinstance(p[-1], str)} == set(key_paths(found))


def key_paths(value, at=()):
    if isinstance(value, dict):
        for k, v in value.items():
            yield (*at, k)
            yield from key_paths(v, (*at, k))
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from key_paths(v, (*at, i))


def json_text() -> str:
    return json.dumps(BASE, indent=2)


@pytest.mark.parametrize(
    ("where", "text", "code", "expected"),
    [
        (
            "plan.json",
            lambda: json_text().replace('"alpha"', '"alhpa"'),
            "P301",
            r"plan\.json:\d+:7: families\.main\.alhpa: unknown key, did you mean 'alpha'",
        ),
        (
            "plan.toml",
            lambda: to_toml(BASE).replace("alpha", "alhpa"),
            "P301",
            r"plan\.toml:\d+:1: families\.main\.alhpa: unknown key, did you mean 'alpha'",
        ),
        (
            "plan.json",
            lambda: '{"a": 1,\n "b": {"c": 2,\n  "c": 3}}',
            "Y001",
            r"key 'c' stands twice\n.*plan\.json:3:3",
        ),
        ("plan.toml", lambda: "a = 1\n[b]\nc = 2\nc = 3\n", "Y001", r"stands twice.*\n.*plan\.toml:4:\d+"),
        ("plan.toml", lambda: "[b]\nc = 2\n[b]\n", "Y001", r"stands twice.*\n.*plan\.toml:3:\d+"),
        ("plan.json", lambda: '{"a": 1,\n  "b" 2}', "Y001", r"not JSON.*\n.*plan\.json:2:7"),
        ("plan.toml", lambda: "a = 1\nb = no\n", "Y001", r"not TOML.*\n.*plan\.toml:2:5"),
        ("plan.json", lambda: '{"a": NaN}', "Y001", r"NaN is no JSON\n.*plan\.json:1:7"),
        (
            "plan.toml",
            lambda: to_toml(BASE).replace("alpha = 0.05", "alpha = nan"),
            "P301",
            r"plan\.toml:\d+:1: families\.main\.alpha: a finite number is expected",
        ),
        (
            "plan.toml",
            lambda: to_toml(BASE | {"notes": "x"}).replace('notes = "x"', "notes = 2026-11-20"),
            "P301",
            r"plan\.toml:\d+:1: notes: text is expected",
        ),
        (
            "plan.json",
            lambda: json_text().replace('"seed": 7', '"seed": 1e400', 1),
            "P301",
            r"analyses\.S1\.seed: a whole number",
        ),
        (
            "plan.json",
            lambda: json_text().replace("Mean entropy of a toy panel", "\\ud800"),
            "P301",
            r"title: half a character",
        ),
        ("plan.json", lambda: "[" * 100_000, "Y001", r"nested too deeply"),
        ("plan.yaml", lambda: "[" * 3_000, "Y001", r"nested too deeply"),
        ("plan.json", lambda: "[1]", "P301", r"plan\.json:1:1: plan: a mapping is expected"),
        ("plan.toml", lambda: "a = 'e\u0301'", "Y001", r"normal form C"),
        ("plan.json", lambda: "", "Y001", r"not JSON"),
    ],
)
def test_faults_have_line_and_column(where, text, code, expected):
    with pytest.raises(DynstatError) as e:
        parse_plan(text(), where)
    assert e.value.code == code and re.search(expected, str(e.value)), str(e.value)


def test_a_folder_holds_one_plan(study):
    first = load_plan(study)
    (study / "plan.toml").write_text(to_toml(BASE))
    for target in (study, study / "plan.yaml", study / "plan.toml"):
        with pytest.raises(DynstatError) as e:
            load_plan(target)
        assert e.value.code == "P301" and "plan.toml" in e.value.found
    (study / "plan.yaml").unlink()
    assert find_study(study) == study and load_plan(study).sha256 == first.sha256
    assert (
        load_plan(study).where == "drift/plan.toml" and load_plan(study / "plan.toml").sha256 == first.sha256
    )
    (study / "plan.toml").unlink()
    (study / "plan.json").write_text(json_text())
    assert load_plan(study).sha256 == first.sha256


def test_a_study_in_toml_can_be_checked_locked_and_run(study, inputs, saved, tmp_path):
    from dynstat.prereg.check import check_study
    from dynstat.prereg.lock import load_lock, lock_study
    from dynstat.prereg.runner import run_study
    from dynstat.prereg.verify import verify_study

    sha256 = load_plan(study).sha256
    (study / "plan.yaml").unlink()
    (study / "plan.toml").write_text(to_toml(BASE))
    assert check_study(study)["sha256"] == sha256
    lock = lock_study(study, "demo", inputs)
    assert load_lock(lock).content["plan_sha256"] == sha256
    made = run_study(lock, saved(2.0), tmp_path / "out")
    assert made.stamp == "registered" and made.outcomes["H1"][0] == "supported"
    assert verify_study(study)["locks"][0]["plan_changed"] is False
