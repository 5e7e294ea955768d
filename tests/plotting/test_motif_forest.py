"""Figures of motifs and dwell times: what is drawn is what the tables hold, and alt text says it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynstat.errors import DynstatError
from dynstat.plotting import save_svg
from dynstat.plotting.dwell_curves import alt_text as dwell_alt
from dynstat.plotting.dwell_curves import dwell_curves
from dynstat.plotting.motif_forest import alt_text, initials, motif_forest


@pytest.fixture
def table() -> pd.DataFrame:
    rows = []
    for motif, base in (("STABLE > HIDDEN_TURBULENCE", 2.0), ("HIDDEN_TURBULENCE > STABLE", 1.0)):
        for null in ("markov", "depth"):
            for g, group in enumerate(("gpt2", "opt")):
                e = base + 0.1 * g
                rows.append((motif, group, null, e, e / 1.3, e * 1.3, base > 1.5, base > 1.5))
    columns = ["motif", "group", "null", "estimate", "conf.low", "conf.high", "enriched", "conserved"]
    return pd.DataFrame(rows, columns=columns)


def test_forest_draws_every_group_beside_every_null(table: pd.DataFrame, tmp_path: Path) -> None:
    fig = motif_forest(table)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["null: markov", "null: depth"]
    names = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert names == ["★ S > HT", "HT > S"]
    for ax in fig.axes:
        marks = [line for line in ax.lines if line.get_marker() not in ("None", None)]
        assert sorted(line.get_xdata()[0] for line in marks) == [1.0, 1.1, 2.0, 2.1]
        filled = [line.get_markerfacecolor() != "white" for line in marks]
        assert [line.get_xdata()[0] > 1.5 for line in marks] == filled
        assert {1.0, 1.2} <= {line.get_xdata()[0] for line in ax.lines}
    text = alt_text(table, possible=2)
    assert "1 of 2 possible motifs conserved" in text
    assert "STABLE > HIDDEN_TURBULENCE (conserved): markov 2.00 to 2.10, passes in 2 of 2" in text
    assert save_svg(fig, tmp_path / "x.svg", text).exists()
    assert len(motif_forest(table, largest=1, short=False).axes[0].get_yticklabels()) == 1
    with pytest.raises(DynstatError, match="S404"):
        motif_forest(table.iloc[:0])


def test_short_names_stay_different() -> None:
    assert initials(["STABLE", "SPARSE"]) == {"STABLE": "ST", "SPARSE": "SP"}


def test_dwell_draws_a_panel_a_state(tmp_path: Path) -> None:
    time = np.arange(5)
    parts = []
    for state, h in (("STABLE", 0.2), ("COMMITTED_NO_BIFURCATION", 0.6)):
        s = (1 - h) ** time
        parts.append(
            pd.DataFrame(
                {"state": state, "group": "all", "time": time, "at.risk": 40, "ended": 1, "estimate": s}
                | {"conf.low": 0.9 * s, "conf.high": np.minimum(1, 1.1 * s), "geometric": s}
            )
        )
    table = pd.concat(parts, ignore_index=True)
    fig = dwell_curves(table)
    assert len(fig.axes) == 2
    np.testing.assert_allclose(fig.axes[1].lines[0].get_ydata(), 0.4**time)
    text = dwell_alt(table)
    assert "STABLE, 40 stays: after 1 .80 (geometric .80), after 2 .64 (geometric .64)" in text
    assert save_svg(fig, tmp_path / "d.svg", text).exists()
    with pytest.raises(DynstatError, match="S407"):
        dwell_curves(table, group="gpt2")
