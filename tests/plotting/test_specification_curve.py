"""The specification curve draws every universe once, in order, and its alt text says what it shows."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from dynstat.errors import DynstatError
from dynstat.plotting import save_svg
from dynstat.plotting.specification_curve import (
    OUTCOMES,
    Choice,
    Specification,
    describe_curve,
    specification_curve,
)

CHOICES = [Choice("scale", ("log", "raw")), Choice("layer", ("last", "0.5", "0.25"), "uncertain")]


def universes(groups: bool = True) -> list[Specification]:
    out = []
    for i, (scale, layer) in enumerate(itertools.product(*(c.options for c in CHOICES))):
        estimate = math.nan if i == 4 else 0.3 - 0.05 * i
        outcome = ("inconclusive", "supported", "rejected", "supported", "errored", "inconclusive")[i]
        out.append(
            Specification(
                (scale, layer),
                estimate,
                estimate - 0.1,
                estimate + 0.1,
                outcome,
                i == 0,
                f"layer = {layer}" if groups else "",
            )
        )
    return out


def marks(ax) -> list[tuple[float, float, str]]:
    found = []
    for line in ax.lines:
        if line.get_linestyle() == "None":
            found += [(x, y, line.get_marker()) for x, y in zip(*line.get_data(), strict=True)]
    return sorted(found)


def test_estimates_ascend_within_a_multiverse_and_each_has_its_mark(tmp_path: Path) -> None:
    drawn = universes(groups=False)
    fig = specification_curve(drawn, CHOICES, quantity="share.model", bands=[(0.1, 0.2)])
    curve, matrix = fig.axes
    found = marks(curve)
    assert [y for _, y, _ in found] == sorted(s.estimate for s in drawn if math.isfinite(s.estimate))
    by_estimate = {s.estimate: s.outcome for s in drawn}
    assert [m for _, _, m in found] == [OUTCOMES[by_estimate[y]].marker for _, y, _ in found]
    labels = [t.get_text() for t in matrix.get_yticklabels()]
    assert labels[:4] == ["✓ supported (2)", "✗ rejected (1)", "○ inconclusive (2)", "! errored (1)"]
    assert labels[4:] == ["scale: log ★", "scale: raw", "layer: last ★", "layer: 0.5", "layer: 0.25"]
    # Every universe stands once among the outcomes and once in every dimension, the errored one too.
    rows = [sorted(seg[0][0] for seg in c.get_segments()) for c in matrix.collections]
    for part in (rows[:4], rows[4:6], rows[6:]):
        assert sorted(x for row in part for x in row) == [0, 1, 2, 3, 4, 5]
    assert rows[3] == [5.0]
    # The line of the registered universe, at its place in both panels.
    place = next(x for x, y, _ in found if y == 0.3)
    for ax in (curve, matrix):
        assert place in [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "-"]
    assert (
        save_svg(fig, tmp_path / "a.svg", "x").read_bytes()
        == save_svg(
            specification_curve(drawn, CHOICES, quantity="share.model", bands=[(0.1, 0.2)]),
            tmp_path / "b.svg",
            "x",
        ).read_bytes()
    )


def test_multiverses_stand_side_by_side_and_beside_comes_last() -> None:
    drawn = universes()
    beside = Specification(("raw", "last"), 0.9, 0.8, 1.0, "rejected", group="beside")
    fig = specification_curve([beside, *drawn], CHOICES, bands=[(0.5, 0.5)])
    curve = fig.axes[0]
    assert [t.get_text() for t in curve.texts if t.get_text() != "★"] == ["M1", "M2", "M3", "N"]
    assert marks(curve)[-1][1] == 0.9
    ys = [y for _, y, _ in marks(curve)][:-1]
    groups = [[s.estimate for s in drawn if s.group == f"layer = {g}"] for g in CHOICES[1].options]
    assert ys == [y for g in groups for y in sorted(v for v in g if math.isfinite(v))]
    text = describe_curve([beside, *drawn], CHOICES, quantity="share.model", bands=[(0.5, 0.5)])
    assert "over 7 universes" in text and "threshold .500" in text
    assert "Registered universe: inconclusive, .300 [.200, .400]." in text
    assert "Multiverse 2 (layer = 0.5): 2 universes, estimate .250; 1 supported, 1 errored." in text
    assert "Beside: 1 universe, estimate .900; 1 rejected." in text


@pytest.mark.parametrize("n", [1, 12, 48, 192, 400])
def test_any_number_can_be_drawn(n: int, tmp_path: Path) -> None:
    drawn = [
        Specification((str(i % 3),), i / n, i / n - 0.1, i / n + 0.1, "inconclusive", i == n // 2)
        for i in range(n)
    ]
    fig = specification_curve(drawn, [Choice("d", ("0", "1", "2"))])
    assert len(marks(fig.axes[0])) == n
    assert save_svg(fig, tmp_path / "c.svg", describe_curve(drawn, [Choice("d", ("0", "1", "2"))])).exists()


def test_universes_that_all_failed_are_drawn_too() -> None:
    lost = [Specification(("a",), math.nan, math.nan, math.nan, "missing", True)]
    fig = specification_curve(lost, [Choice("d", ("a", "b"))])
    assert fig.axes[1].get_yticklabels()[0].get_text() == "? missing (1)"
    assert "Registered universe: missing." in describe_curve(lost, [Choice("d", ("a", "b"))])


def test_refusals() -> None:
    with pytest.raises(DynstatError, match="S404.*1 to 400"):
        specification_curve([], CHOICES)
    with pytest.raises(DynstatError, match="S404.*no such outcome"):
        specification_curve([Specification(("log", "last"), 0.1, 0, 1, "maybe")], CHOICES)
