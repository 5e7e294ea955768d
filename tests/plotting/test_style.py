"""What every figure keeps: the same bytes, alt text inside, no global state, colours that stay apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dynstat.errors import DynstatError
from dynstat.plotting.shares import ShareRow, describe_shares, variance_shares
from dynstat.plotting.style import DECISIONS, figure, number, save_svg, shorten, style
from dynstat.plotting.trajectories import layer_profile, ratio_norm_by_model

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    ShareRow("model", (0.12, 0.04, 0.30), (0.15, 0.02, 0.65), 0.01, (0.036, 0.131), "inconclusive", "A1"),
    ShareRow("a$b$ <&> \\x", (0.0, float("nan"), float("nan")), None, 0.0),
    ShareRow("residual", (0.70, 0.63, 0.80), (0.61, 0.22, 0.84), 0.95, (0.613, 0.864), "supported", "A3"),
]


def _texts(svg: Path) -> list[str]:
    return ["".join(e.itertext()) for e in ElementTree.parse(svg).getroot().iter(f"{SVG}text")]


def test_the_same_figure_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = (
        "import sys; from dynstat.plotting.shares import *; from dynstat.plotting.style import save_svg;"
        "row = ShareRow('model', (.1, .05, .2), None, .02, (.03, .13));"
        "save_svg(variance_shares([row]), sys.argv[1], 'alt')"
    )
    for name in ("a.svg", "b.svg"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    fig = variance_shares([ShareRow("model", (0.1, 0.05, 0.2), None, 0.02, (0.03, 0.13))])
    with mpl.rc_context({"svg.fonttype": "path", "font.size": 30, "svg.hashsalt": "other"}):
        save_svg(fig, tmp_path / "c.svg", "alt")
    assert (tmp_path / "c.svg").read_bytes() == (tmp_path / "a.svg").read_bytes()


def test_alt_text_is_required_and_stands_in_the_file(tmp_path: Path) -> None:
    fig = variance_shares(ROWS)
    with pytest.raises(DynstatError, match="S404"):
        save_svg(fig, tmp_path / "x.svg", " \n")
    assert list(tmp_path.iterdir()) == []
    save_svg(fig, tmp_path / "x.svg", "Shares & such. Second <sentence>.\x0c")
    root = ElementTree.parse(tmp_path / "x.svg").getroot()
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and title.text == "Shares & such"
    assert desc is not None and desc.text == "Shares & such. Second <sentence>."
    assert root.get("role") == "img"
    assert root.get("aria-labelledby", "").split() == [title.get("id"), desc.get("id")]


def test_text_stays_text_and_no_mathematics_is_read_into_names(tmp_path: Path) -> None:
    texts = _texts(save_svg(variance_shares(ROWS), tmp_path / "x.svg", "alt"))
    assert "a$b$ <&> \\x" in texts
    assert {".12 [.04, .30]", ".15 [.02, .65]", "A1: inconclusive", "chance level"} <= set(texts)


def test_no_date_version_or_global_setting_leaks(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    text = save_svg(variance_shares(ROWS), tmp_path / "x.svg", "alt").read_text()
    assert dict(mpl.rcParams) == before
    assert "Matplotlib" not in text and "dc:date" not in text


def test_every_number_of_the_figure_is_in_the_alt_text(tmp_path: Path) -> None:
    alt = describe_shares(ROWS, level=0.9)
    for part in (
        "90 %",
        ".12 [.04, .30]",
        ".61 [.22, .84]",
        ".036 to .131",
        "chance level .95",
        "A3 supported",
    ):
        assert part in alt
    assert "nan" not in alt


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_decisions_differ_in_marker_and_in_contrast_to_the_page() -> None:
    assert len({mark.marker for mark in DECISIONS.values()}) == len(DECISIONS)
    for decision in ("supported", "rejected", "inconclusive"):
        # WCAG 2.1, 1.4.11: graphics need a contrast of 3 to 1.
        assert 1.05 / (_luminance(DECISIONS[decision].colour) + 0.05) >= 3


def test_numbers_are_printed_in_apa_style() -> None:
    assert [number(x) for x in (0.071, 0.999, 1.0, -0.3, -0.001)] == [".07", "1.00", "1.00", "−.30", ".00"]
    assert len(shorten("x" * 99)) == 30


def test_overview_figures_leave_out_what_is_not_a_number(tmp_path: Path) -> None:
    fig = ratio_norm_by_model({"m": [1.0, 2.0, 4.0, float("nan"), float("inf"), 0.0], "empty": []})
    texts = _texts(save_svg(fig, tmp_path / "r.svg", "alt"))
    assert {"m (n = 3)", "empty (n = 0)", "2"} <= set(texts)
    fig = layer_profile(
        {f"m{i}": ([0, 0.5, 1], [3, 2, 1 + i / 100]) for i in range(9)} | {"n": ([0, 1], [float("nan")] * 2)}
    )
    labels = [t for t in fig.axes[0].texts]
    heights = sorted(t.xy[1] for t in labels)
    low, high = fig.axes[0].get_ylim()
    assert len(labels) == 9 and min(b - a for a, b in zip(heights, heights[1:], strict=False)) > 0.05 * (
        high - low
    )


def test_figures_stay_inside_the_page() -> None:
    with style():
        assert figure(2.0).get_size_inches().tolist() == [6.5, 2.0]
    fig = variance_shares(ROWS)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    width, height = fig.get_size_inches() * fig.dpi
    renderer = canvas.get_renderer()
    boxes = [t.get_window_extent(renderer) for t in (*fig.axes[0].texts, *fig.axes[0].get_yticklabels())]
    assert all(b.x0 >= 0 and b.x1 <= width and b.y0 >= 0 and b.y1 <= height for b in boxes)
