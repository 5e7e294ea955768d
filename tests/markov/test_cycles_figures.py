"""Figures of cycles: drawn from the result, described from the result."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest

from dynstat.errors import DynstatError
from dynstat.markov import discrete_hazard, duration_dependence, reopening
from dynstat.markov.spells import make_spells
from dynstat.plotting.cycles import alt_text, hazard_by_duration, reopening_curve
from dynstat.plotting.style import save_svg

QUICK = {"replicates": 99, "permutations": 99}


@pytest.fixture(scope="module")
def spells():
    rng = np.random.default_rng(1)
    inside = (rng.random((60, 30)) < 0.6).astype(np.int8)
    ended = np.zeros(60, dtype=bool)
    for run in range(0, 60, 2):
        inside[run, rng.integers(5, 30) :] = -1
        ended[run] = True
    labels = pd.DataFrame({"prompt": [f"p{i // 4}" for i in range(60)], "model": ["a", "b"] * 30})
    return make_spells("RIVALRY", inside, labels, ended)


@pytest.fixture(scope="module")
def result(spells):
    return reopening(spells, horizon=3, by="model", **QUICK)


def test_curve_shows_what_the_table_holds(result, tmp_path):
    ax = result.plot().axes[0]
    table = result.curve.query("group == 'all' and `n.risk` > 0")
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(lines["reopened"].get_ydata()[1:], table["estimate"])
    np.testing.assert_allclose(lines["1 − Kaplan–Meier"].get_ydata()[1:], table["kaplan.meier"])
    np.testing.assert_allclose(lines["end of text came first"].get_ydata()[1:], 1 - table["ended"])
    assert lines["naive share"].get_ydata()[0] == result.estimates()["naive"].value
    assert "RIVALRY" in ax.get_xlabel()
    written = {t.get_text() for t in ax.texts}
    assert {"at risk"} < written and written - {"at risk"} <= {f"{n:,}" for n in table["n.risk"]}
    one = save_svg(result.plot(), tmp_path / "a.svg", alt_text(result)).read_bytes()
    assert one == save_svg(reopening_curve(result), tmp_path / "b.svg", alt_text(result)).read_bytes()


def test_alt_text_holds_the_numbers(result):
    text = alt_text(result)
    e = result.estimates()["reopening"]
    for value in (e.value, e.low, e.high, result.estimates()["naive"].value):
        assert f"{value:.2f}".lstrip("0") in text
    assert f"{len(result.spells)} stays in RIVALRY" in text and "nan" not in text
    assert "of b" in alt_text(result, "b") == result.alt_text("b")
    with pytest.raises(DynstatError) as error:
        alt_text(result, "c")
    assert error.value.code == "S407"


def test_hazard_figure(spells):
    got = duration_dependence(spells, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax = hazard_by_duration(got).axes[0]
    seen = got.tidy().query("`n.risk` > 0")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), seen["estimate"])
    assert re.search(r"p = \.\d{3}", alt_text(got)) and got.alt_text() == alt_text(got)


def test_ratios_are_drawn_where_the_table_has_them(spells):
    model = discrete_hazard(spells, formula="model + log(duration)")
    ax = model.plot().axes[0]
    table = model.tidy().query("term != 'Intercept'")
    np.testing.assert_allclose(ax.lines[1].get_xdata(), table["estimate"])
    assert [t.get_text() for t in ax.get_yticklabels()] == table["term"].tolist()
    assert ax.get_xscale() == "log" and "odds ratio" in ax.get_xlabel()
    assert all(f"{v:.2f}" in model.alt_text() for v in table["estimate"])
    with pytest.raises(DynstatError, match="S404"):
        discrete_hazard(spells, formula="1").plot()
