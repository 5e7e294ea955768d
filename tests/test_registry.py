"""Every registered definition can be found, named, read and called."""

import inspect
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dynstat.errors import DynstatError
from dynstat.metrics.options import SELECTION, SERIES
from dynstat.registry import METRICS, Metric, Option, Registry, parse_metric

ENTRIES = list(METRICS)
PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
STORED = (
    "state_norm step_length turning_angle entropy top1_probability top2_probability concentration "
    "sum_squares competition dispersion effective_vocabulary synchronisation kappa_G kappa_D kappa_sync"
).split()
DERIVED = (
    "ct ratio_norm late_ct flux debt repetition_rate commitment_time gd_ratio regime state collapse rivalry"
).split()


def by_id(entry):
    return entry.id


def test_all_agreed_names_are_there():
    names = [e.name for e in ENTRIES]
    assert len(set(names)) == len(names)
    assert set(STORED + DERIVED) <= set(names)
    for name in STORED:
        want = "token" if name == "kappa_sync" else "layer"
        assert METRICS.get(name).level == want


@pytest.mark.parametrize("entry", ENTRIES, ids=by_id)
def test_entry_is_complete(entry):
    assert entry.long_name and entry.units and entry.reference and entry.formula and entry.summary
    assert entry.origin in ("published", "dynstat")
    assert entry.valid_min < entry.valid_max
    assert entry.dtype in ("float32", "int8", "int32")
    if entry.flags:
        assert entry.dtype == "int8" and (entry.valid_min, entry.valid_max) == (-1, len(entry.flags) - 1)
        assert all(re.fullmatch(r"\w+", f) for f in entry.flags)
    for mark in entry.undefined:
        assert re.fullmatch(r"first_tokens:\d+|last_layer|last_token|frozen|missing_input", mark)
    for source in entry.inputs:
        read = ("states", "logits", "next_logits", "final_logits", "next_token", "tokens")
        assert source in read or source in METRICS


@pytest.mark.parametrize("entry", ENTRIES, ids=by_id)
def test_entry_resolves_to_a_documented_function(entry):
    function = entry.resolve()
    assert callable(function) and function.__module__.startswith("dynstat.metrics.")
    doc = inspect.getdoc(function)
    assert doc and doc.splitlines()[0].endswith(".")
    # What a plan may set is either an argument of the function or chooses its input.
    own = set(entry.options) - set(SELECTION) - set(SERIES)
    known = set(inspect.signature(function).parameters)
    by_wrapper = {
        "ratio_norm_z": {"seed"}, "run_mean": {"of"}, "commitment_time": {"order", "kind", "tau"},
        "gd_ratio": {"G", "D"}, "collapse": {"enter_quantile", "leave_quantile"},
        "state": {"high", "low", "commitment"}, "repetition_rate": set(),
    }  # fmt: skip
    assert own <= known | by_wrapper.get(entry.name, set())


@pytest.mark.parametrize("entry", ENTRIES, ids=by_id)
def test_defaults_are_allowed_and_options_are_explained(entry):
    filled = entry.fill({})
    assert entry.fill(filled) == filled
    for name, option in entry.options.items():
        assert option.allowed is None or len(option.allowed) > 0, name


@pytest.mark.parametrize("entry", ENTRIES, ids=by_id)
def test_entry_is_on_the_page(entry):
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{entry.name}` |")]
    assert len(rows) == 1, f"docs/metrics.md needs one row for {entry.name}"
    assert f"| {entry.origin} |" in rows[0] and f"| {entry.units} |" in rows[0]


def test_page_names_no_metric_that_does_not_exist():
    named = re.findall(r"^\| `(\w+)` \|.*\| (?:published|dynstat) \|", PAGE, re.MULTILINE)
    assert sorted(named) == sorted(e.name for e in ENTRIES)


def test_only_seen_formulas_are_called_published():
    published = {e.name for e in ENTRIES if e.origin == "published"}
    assert published == {"entropy", "ratio_norm", "gd_ratio", "regime"}


def test_float32_fits_the_valid_range():
    import numpy as np

    for entry in ENTRIES:
        if math.isfinite(entry.valid_max) and entry.units == "rad":
            assert np.float32(entry.valid_max) == entry.valid_max
    assert np.float32(np.pi) <= METRICS.get("turning_angle").valid_max


def test_registry_imports_no_numpy():
    code = (
        "import sys\nfrom dynstat.registry import METRICS, parse_metric\nlist(METRICS)\n"
        "parse_metric({'metric': 'ratio_norm@1', 'tokens': 32})\nassert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_parse_metric_fills_defaults():
    entry, options = parse_metric({"metric": "ratio_norm@1", "scale": "log", "layer": 0.5, "tokens": 48})
    assert entry.name == "ratio_norm" and options["scale"] == "log" and options["alignment"] == "causal"
    assert set(options) == set(entry.options)
    assert options["special"] == options["first"] == "drop"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"metric": "ratio_nrm"}, "Y003"),
        ({"metric": "ratio_norm@2"}, "Y003"),
        ({"alignement": "causal"}, "Y002"),
        ({"alignment": "late"}, "Y003"),
        ({"layer": 1.0}, "Y003"),  # canonical JSON would write 1, another layer
        ({"layer": 0.0}, "Y003"),
        ({"layer": -1}, "Y003"),
        ({"layer": True}, "Y003"),
        ({"layer": "first"}, "Y003"),
        ({"tokens": 0}, "Y003"),
        ({"tokens": None}, "Y003"),
        ({"clip": 4}, "Y003"),
        ({"eps": "small"}, "Y003"),
    ],
)
def test_parse_metric_refuses(changes, code):
    with pytest.raises(DynstatError) as error:
        parse_metric({"metric": "ratio_norm@1"} | changes)
    assert error.value.code == code
    assert "did you mean" in str(error.value) or error.value.expected


@pytest.mark.parametrize(
    "changes", [{"layer": 3}, {"layer": "last"}, {"layer": 0.25}, {"clip": 3}, {"tokens": "all"}]
)
def test_parse_metric_accepts(changes):
    assert (
        parse_metric({"metric": "ratio_norm@1"} | changes)[1] | changes
        == parse_metric({"metric": "ratio_norm@1"} | changes)[1]
    )


@pytest.mark.parametrize("cuts", [[1, 2, 3], [1.5, 2.5, 9], None])
def test_cuts_accepted(cuts):
    assert parse_metric({"metric": "regime@1", "cuts": cuts})[1]["cuts"] == cuts


@pytest.mark.parametrize("cuts", [[3, 2, 1], [1, 2], "1 2 3", [1, 2, None]])
def test_cuts_refused(cuts):
    with pytest.raises(DynstatError):
        parse_metric({"metric": "regime@1", "cuts": cuts})


def test_versions_and_kernels():
    registry: Registry[Metric] = Registry("metric", "Y003")
    old = Metric("m", 1, "dynstat.metrics.runs:gini", "s", "dynstat", "r")
    new = Metric("m", 2, "dynstat.metrics.runs:flux", "s", "dynstat", "r", {"a": Option(1)})
    registry.add(old)
    registry.add(new)
    registry.add(old)
    assert registry.get("m") is new and registry.get("m@1") is old and "m@3" not in registry
    with pytest.raises(DynstatError) as error:
        registry.add(Metric("m", 1, "dynstat.metrics.runs:flux", "s", "dynstat", "r"))
    assert error.value.code == "P307"
    assert registry.kernel("m@1") is None
    registry.attach_kernel("m@1", "dynstat.metrics.runs:debt")
    assert registry.kernel("m@1").__name__ == "debt" and registry.kernels() == {
        "m@1": "dynstat.metrics.runs:debt"
    }
    with pytest.raises(DynstatError):
        new.fill({"a": True})


def test_only_a_panel_names_its_variables():
    from dynstat.registry import parse_measured, parse_metric, variable_name

    spec = {"metric": "concentration@1", "k": 5, "as": "top5"}
    assert parse_measured(spec)[1] == {"k": 5} and variable_name(spec) == "top5"
    assert variable_name({"metric": "entropy@1"}) == variable_name({"metric": "entropy"}) == "entropy"
    with pytest.raises(DynstatError, match="Y002"):
        parse_metric(spec)
