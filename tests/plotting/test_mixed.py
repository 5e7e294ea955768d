"""Figures of a fitted mixed model: what they hold, and that they save as text with alt text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dynstat
from dynstat.errors import DynstatError
from dynstat.plotting import save_svg
from dynstat.plotting.mixed import (
    caterpillar,
    describe_caterpillar,
    describe_profile,
    describe_residuals,
    profile,
    residuals,
)
from dynstat.plotting.style import shorten

DATA = Path(__file__).parent.parent / "oracles" / "lmm"


@pytest.fixture(scope="module")
def sleep():
    return dynstat.lmer("Reaction ~ Days + (Days | Subject)", pd.read_csv(DATA / "sleepstudy.csv"))


def _panels(fig):
    return [ax for part in (fig.subfigs or [fig]) for ax in part.axes]


def test_caterpillar_sorts_levels_and_draws_each_once(sleep):
    axes = _panels(caterpillar(sleep))
    assert [ax.get_xlabel() for ax in axes] == ["(Intercept)", "Days"]
    names = [t.get_text() for t in axes[0].get_yticklabels()]
    modes = sleep.ranef().query("term == '(Intercept)'").sort_values("condval")
    assert names == list(modes["grp"])
    drawn = np.concatenate([line.get_xdata() for line in axes[0].lines if line.get_marker() == "o"])
    np.testing.assert_allclose(np.sort(drawn), modes["condval"])
    # Filled points are those whose interval leaves out zero.
    filled = next(line for line in axes[0].lines if line.get_markerfacecolor() != "white")
    assert len(filled.get_xdata()) == int((modes["condval"].abs() > 1.959964 * modes["condsd"]).sum()) == 6
    assert "18 levels from −40.4 (309)" in describe_caterpillar(sleep)
    assert "6 with an interval that leaves out 0" in describe_caterpillar(sleep)


def test_caterpillar_of_several_factors(tmp_path):
    m = dynstat.lmer(
        "y ~ 1 + (1 | model) + (1 | category/prompt)", pd.read_csv(DATA / "audit.csv", dtype={"seed": str})
    )
    fig = m.plot("caterpillar")
    titles = [ax.get_title(loc="left") for ax in _panels(fig)]
    assert titles == ["prompt:category (72 levels)", "model (17 levels)", "category (6 levels)"]
    assert not _panels(fig)[0].get_yticklabels()
    one = m.plot("caterpillar", group="model", level=0.8)
    assert len(_panels(one)) == 1
    svg = save_svg(fig, tmp_path / "a.svg", describe_caterpillar(m)).read_bytes()
    assert svg == save_svg(m.plot(), tmp_path / "b.svg", describe_caterpillar(m)).read_bytes()
    with pytest.raises(DynstatError, match="no such grouping factor"):
        m.plot(group="nothere")
    with pytest.raises(DynstatError, match="level must lie"):
        m.plot(level=1)


def test_residuals_against_fitted_values_and_normal_quantiles(sleep, tmp_path):
    left, right = residuals(sleep).axes
    cloud = left.lines[0]
    np.testing.assert_allclose(np.sort(cloud.get_ydata()), np.sort(sleep.residuals / sleep.sigma))
    assert left.get_xlabel() == "fitted value (180 rows)"
    points = right.lines[0]
    assert np.all(np.diff(points.get_xdata()) > 0) and np.all(np.diff(points.get_ydata()) >= 0)
    words = describe_residuals(sleep)
    assert "maximum 5.18" in words
    save_svg(sleep.plot("residuals"), tmp_path / "r.svg", words)


def test_many_rows_are_thinned_and_the_axis_says_so():
    rng = np.random.default_rng(0)
    d = pd.DataFrame({"g": np.repeat(np.arange(10), 900), "y": rng.normal(size=9000)})
    d["y"] += rng.normal(size=10)[d["g"]]
    left, _ = residuals(dynstat.lmer("y ~ 1 + (1 | g)", d)).axes
    assert left.get_xlabel() == "fitted value (3000 of 9000 rows)"
    assert len(left.lines[0].get_xdata()) == 3000


def test_profile_draws_the_limits_of_confint(tmp_path):
    m = dynstat.lmer("Yield ~ 1 + (1 | Batch)", pd.read_csv(DATA / "Dyestuff.csv"))
    profiled = m.profile()
    fig = profile(profiled)
    limits = profiled.confint()
    panels = [ax for ax in fig.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in panels] == [shorten(n, 28) for n in limits.index]
    for ax, row in zip(panels, limits.itertuples(), strict=True):
        curve = ax.lines[0]
        assert np.all(np.diff(curve.get_xdata()) > 0) and np.all(np.diff(curve.get_ydata()) > 0)
        upright = [line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1]
        np.testing.assert_allclose(upright, [row[5], row[6]])
    words = describe_profile(profiled)
    # R: confint(m) gives 38.23 to 67.66 for sigma.
    assert "sigma: 49.5 [38.2, 67.7]" in words
    save_svg(fig, tmp_path / "p.svg", words)
    one = m.plot("profile", parameters="sigma", level=0.8)
    assert len(one.axes) == 1
    with pytest.raises(DynstatError, match="no such parameter"):
        profile(profiled, "nothere")


def test_unknown_kinds_are_refused(sleep):
    with pytest.raises(DynstatError, match="unknown kind of figure") as caught:
        sleep.plot("pie")
    assert caught.value.expected == "caterpillar | residuals | profile"
