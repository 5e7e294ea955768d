"""Figures of planned precision and of one variance a category."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynstat.errors import DynstatError
from dynstat.plotting import save_svg
from dynstat.plotting.precision import category_variances, describe_rows, planned_precision


@pytest.fixture
def plans() -> pd.DataFrame:
    rows = [
        (p, s, q, v / np.sqrt(p * s), 0.9 * v / np.sqrt(p * s), 1.2 * v / np.sqrt(p * s))
        for p in (10, 40, 160)
        for s in (1, 4)
        for q, v in (("se.difference", 1.0), ("g", 0.5))
    ]
    return pd.DataFrame(rows, columns=["prompt", "sample", "quantity", "estimate", "conf.low", "conf.high"])


def test_a_line_a_combination_with_its_intervals(plans: pd.DataFrame, tmp_path: Path) -> None:
    fig = planned_precision(plans, along="prompt")
    ax = fig.axes[0]
    assert [line.get_label() for line in ax.lines] == ["sample 1", "sample 4"]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 1 / np.sqrt(4 * np.array([10, 40, 160])))
    drawn = [seg[:, 1] for seg in ax.collections[0].get_segments()]
    np.testing.assert_allclose(drawn[0], [0.9 / np.sqrt(10), 1.2 / np.sqrt(10)])
    alt = describe_rows(plans, ["prompt", "sample", "quantity"], "Planned precision.")
    assert "prompt 10, sample 1, quantity se.difference: 0.316 [0.285, 0.379]." in alt
    assert save_svg(fig, tmp_path / "x.svg", alt).exists()
    assert planned_precision(plans, along="prompt", quantity="g").axes[0].get_ylim() == (0, 1)
    with pytest.raises(DynstatError, match="no such quantity"):
        planned_precision(plans, along="nothere")


def test_the_contrast_stands_out_by_more_than_colour() -> None:
    table = pd.DataFrame(
        {
            "category": ["a", "b"],
            "contrast": [False, True],
            "estimate": [0.2, 0.5],
            "conf.low": [0.1, np.nan],
            "conf.high": [0.3, np.nan],
        }
    )
    ax = category_variances(table).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b (contrast)"] and ax.yaxis_inverted()
    assert [line.get_marker() for line in ax.lines] == ["None", "o", "None", "D"]
    assert "category b: 0.500." in describe_rows(table, ["category"], "Variances.")
