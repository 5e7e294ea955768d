"""The JSON Schema agrees with the check: it accepts valid plans and refuses each fault of a key alike."""

from __future__ import annotations

import copy
import json
import runpy
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from dynstat import study_path
from dynstat.errors import DynstatError
from dynstat.prereg.plan import load_plan, parse_plan
from dynstat.prereg.schema import plan_schema
from dynstat.prereg.study import register_methods
from dynstat.prereg.template import new_study
from dynstat.strictyaml import load_yaml, parse_yaml

HERE = Path(__file__).parent
CONFTEST = runpy.run_path(str(HERE / "conftest.py"))
SHARES = runpy.run_path(str(HERE / "test_plan_keys.py"))["SHARES"]
SCHEMA = plan_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PLANS = {"drift": parse_yaml(CONFTEST["PLAN"]), "shares": parse_yaml(SHARES)}
STUDIES = sorted(
    p.name for p in study_path("conditional_signatures").parent.iterdir() if (p / "plan.yaml").exists()
)


@pytest.fixture(scope="module", autouse=True)
def method(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    (folder / "analysis.py").write_text(CONFTEST["ANALYSIS"])
    register_methods(folder)


def accepted(value) -> bool:
    try:
        parse_plan(json.dumps(value), "plan.json")
    except DynstatError as e:
        assert e.code == "P301"
        return False
    return True


def test_it_is_a_schema_and_can_be_written():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA


@pytest.mark.parametrize("name", [*PLANS, *STUDIES, "template"])
def test_every_valid_plan_validates(name, tmp_path):
    if name == "template":
        value = load_yaml(new_study(tmp_path / "mine") / "plan.yaml")
        load_plan(tmp_path / "mine")
    elif name in PLANS:
        value = PLANS[name]
        assert accepted(value)
    else:
        value = load_yaml(study_path(name) / "plan.yaml")
        load_plan(study_path(name))
    assert [e.message for e in VALIDATOR.iter_errors(value)] == []


def mappings(value, at=()):
    if isinstance(value, dict):
        yield at
        for k, v in value.items():
            yield from mappings(v, (*at, k))
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from mappings(v, (*at, i))


def at_path(value, path):
    for p in path:
        value = value[p]
    return value


# The keys of these are the user's own, or belong to a method that a study registers.
FREE = (
    "families",
    "analyses",
    "hypotheses",
    "exploratory",
    "gates",
    "exclusions",
    "dimensions",
    "robustness",
)


def is_free(path) -> bool:
    names = [p for p in path if isinstance(p, str)]
    return bool(names) and (
        names[-1] in FREE
        or names[-1] == "leave_out"
        or (names[-1] == "options" and "S1" in names or "X1" in names)
    )


@pytest.mark.parametrize("name", PLANS)
def test_keys_that_are_missing_or_unknown_are_refused_alike(name):
    checked = 0
    for path in mappings(PLANS[name]):
        for key in list(at_path(PLANS[name], path)):
            plan = copy.deepcopy(PLANS[name])
            del at_path(plan, path)[key]
            if not VALIDATOR.is_valid(plan):
                assert not accepted(plan), (*path, key)
            elif not accepted(plan):
                # Names declared elsewhere, and what a method or a family owes, the check alone knows.
                assert is_free(path) or key in ("outcome", "options", "pairs", "reason"), (
                    *path,
                    key,
                )
            checked += 1
        if not is_free(path) and path[-1:] != ("expected_se",):
            plan = copy.deepcopy(PLANS[name])
            at_path(plan, path)["nonsense"] = "x"
            assert not accepted(plan) and not VALIDATOR.is_valid(plan), path
    assert checked > 100


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("wrong", [None, "nonsense", -1, [], {}])
def test_what_the_schema_refuses_the_check_refuses(name, wrong):
    for path in mappings(PLANS[name]):
        for key in at_path(PLANS[name], path):
            plan = copy.deepcopy(PLANS[name])
            at_path(plan, path)[key] = wrong
            if not VALIDATOR.is_valid(plan):
                assert not accepted(plan), (*path, key, wrong)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("analyses", "S1", "outcome", "scale"), "ln"),
        (("analyses", "S1", "outcome", "skale"), "log"),
        (("analyses", "S1", "outcome", "metric"), "ratio_nrm@1"),
        (("analyses", "S1", "method"), "variance.shares"),
        (("analyses", "S2", "options", "linkage"), "wrd"),
        (("analyses", "S2", "options", "standardize"), 1),
        (("hypotheses", "H1", "rule"), "in_range"),
        (("hypotheses", "H1", "direction"), "up"),
        (("families", "main", "correction"), "hulm"),
        (("data", "units", "inference"), "token"),
    ],
)
def test_typed_choices_are_in_the_schema(path, value):
    plan = copy.deepcopy(PLANS["shares"])
    at_path(plan, path[:-1])[path[-1]] = value
    assert not VALIDATOR.is_valid(plan) and not accepted(plan)


def test_the_command_prints_it_without_numpy():
    code = (
        "import sys; from dynstat.cli import main\n"
        "try:\n    main(['prereg', 'schema'])\nexcept SystemExit as e:\n    assert not e.code\n"
        "assert 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(SCHEMA))
