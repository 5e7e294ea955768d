"""The read-outs of one model side by side: a metric's mean by layer, a line a read-out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from ..dataset.schema import OK
from ..errors import DynstatError
from .style import OKABE_ITO, figure, number, style

_PLAIN = "plain"
# Plain first; colour, marker and dash tell lines apart, each alone.
_LINES = {
    _PLAIN: ("black", "o", "-"),
    "no_norm": ("vermillion", "s", "--"),
    "t_matched": ("blue", "^", "-."),
    "top_k": ("green", "D", ":"),
    "tuned": ("purple", "v", (0, (4, 1, 1, 1, 1, 1))),
}
_AXES = {
    "entropy": "entropy (nat)",
    "kl_from_final": "KL(final || layer) (nat)",
    "kl_to_final": "KL(layer || final) (nat)",
}


def readouts_table(
    ds: xr.Dataset, metrics: Sequence[str] = ("entropy", "kl_from_final"), *, model: str | None = None
) -> pd.DataFrame:
    """Average metrics over tokens, by read-out and layer.

    Parameters
    ----------
    ds : xarray.Dataset
        Extracted, with read-outs beside the plain lens.
    metrics : sequence of str, optional
        Variables of the plain lens.
    model : str, optional
        Which model; needed where there are several.

    Returns
    -------
    DataFrame
        Columns metric, readout, layer, mean, n. First and special tokens are left out, and points that are
        not ok.

    Raises
    ------
    DynstatError
        D103 (no such variable), S404 (several models and none named, or an unknown one).
    """
    if missing := [m for m in metrics if m not in ds]:
        raise DynstatError("D103", f"the dataset holds no {missing[0]}", where="metrics", found=missing)
    known = ds["model"].values.tolist()
    if model is None and len(known) > 1 or model is not None and model not in known:
        raise DynstatError(
            "S404", "one model is drawn at a time", where="model", found=model, expected=", ".join(known)
        )
    one = ds.sel(model=model or known[0])
    counts = (one["quality"] == OK) & (one["is_first"] == 0) & (one["is_special"] == 0)
    others = [d for d in counts.dims if d != "layer"]
    rows = []
    for metric in metrics:
        for readout in _LINES:
            name = metric if readout == _PLAIN else f"{metric}__{readout}"
            if name not in one:
                continue
            values = one[name].astype(float).where(counts)
            mean, n = values.mean(others).values, values.notnull().sum(others).values
            rows += [
                (metric, readout, int(layer), float(m), int(k))
                for layer, m, k in zip(one["layer"].values, mean, n, strict=True)
                if k
            ]
    return pd.DataFrame(rows, columns=["metric", "readout", "layer", "mean", "n"])


def readouts_by_layer(table: pd.DataFrame) -> Figure:
    """Draw the means of :func:`readouts_table`, a panel a metric and a line a read-out.

    Parameters
    ----------
    table : DataFrame
        From :func:`readouts_table`.

    Returns
    -------
    Figure
        A metric with values above ten times its median is drawn on a root scale.
    """
    metrics = list(dict.fromkeys(table["metric"]))
    with style():
        fig = figure(height=3.1)
        axes = np.atleast_1d(fig.subplots(1, len(metrics)))
        for ax, metric in zip(axes, metrics, strict=True):
            part = table[table["metric"] == metric]
            for readout, rows in part.groupby("readout", sort=False):
                colour, marker, dash = _LINES[str(readout)]
                ax.plot(
                    rows["layer"], rows["mean"], color=OKABE_ITO[colour], marker=marker, linestyle=dash,
                    markersize=4.5, linewidth=1.2, label=str(readout),
                )  # fmt: skip
            wide = part["mean"].max() > 10 * part["mean"].median() > 0
            if wide:
                ax.set_yscale("function", functions=(_root, np.square))
                ax.yaxis.set_major_formatter("{x:g}")
            ax.set_ylim(bottom=0)
            ax.set_xticks(sorted(part["layer"].unique()))
            ax.set_xlabel("layer")
            ax.set_ylabel(_AXES.get(metric, metric) + (", root scale" if wide else ""))
            ax.grid(axis="y", color="#EEEEEE", linewidth=0.8)
        # Every read-out has an entropy, not every one a divergence: the fullest panel names them all.
        fullest = max(axes, key=lambda a: len(a.lines))
        fig.legend(*fullest.get_legend_handles_labels(), loc="outside upper left", ncols=5)
        return fig


def _root(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(x, 0))


def describe_readouts(table: pd.DataFrame, title: str) -> str:
    """Return alt text: the title, and every line's means at first, middle and last layer."""
    parts = [title.rstrip(".") + "."]
    for (metric, readout), rows in table.groupby(["metric", "readout"], sort=False):
        picked = rows.iloc[[0, len(rows) // 2, -1]].to_dict("records")
        words = ", ".join(f"{number(r['mean'], leading_zero=True)} at layer {r['layer']}" for r in picked)
        parts.append(f"{metric}, {readout}: {words}.")
    return " ".join(parts)
