"""Figures of chains say what the chain says."""

import warnings

import numpy as np
import pytest

from dynstat.errors import DynstatError
from dynstat.markov.estimation import chain
from dynstat.markov.sequences import Sequences
from dynstat.plotting.chains import alt_text, transition_graph, transition_matrix_map
from dynstat.plotting.style import save_svg

NAMES = ("STABLE", "HIDDEN_TURBULENCE", "SURFACE_BRANCHING", "COMMITTED", "FULL_BIFURCATION")


def made(k, seed=0, names=NAMES):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.8), size=k)
    lists = []
    for _ in range(12):
        x = [0]
        while len(x) < 40:
            x.append(int(rng.choice(k, p=p[x[-1]])))
        lists.append([names[i] for i in x])
    s = Sequences.from_lists(lists, states=names[: max(k, 2)], labels={"prompt": list("abcdefghijkl")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return chain(s, replicates=99)


def texts(fig):
    return [t.get_text() for ax in fig.axes for t in ax.texts]


@pytest.mark.parametrize("k", [2, 3, 5])
def test_every_state_and_cell_is_written(k, tmp_path):
    c = made(k)
    graph, heat = transition_graph(c, threshold=0.1), transition_matrix_map(c)
    for i, name in enumerate(c.states):
        (own,) = [t for t in texts(graph) if t.startswith(name + "\n")]
        assert f"{c.matrix[i, i]:.2f}"[1:] in own or f"{c.matrix[i, i]:.3f}"[1:] in own
    arrows = [p for p in graph.axes[0].patches]
    assert len(arrows) == int(np.sum((c.matrix >= 0.1) & ~np.eye(k, dtype=bool)))
    # Wider arrows for likelier steps.
    widths = sorted(a.get_linewidth() for a in arrows)
    likely = sorted(c.matrix[(c.matrix >= 0.1) & ~np.eye(k, dtype=bool)])
    assert widths == pytest.approx([9 * p for p in likely])
    assert len(texts(heat)) == k * k + k
    assert "from .10 on" in " ".join(graph.get_supxlabel().split())
    svg = save_svg(heat, tmp_path / "a.svg", alt_text(c, "matrix")).read_bytes()
    assert svg == save_svg(transition_matrix_map(c), tmp_path / "b.svg", alt_text(c, "matrix")).read_bytes()


def test_rare_and_undefined_cells_are_marked():
    lists = [["A_STATE", "B_STATE"] * 12, ["A_STATE", "A_STATE", "B_STATE", "A_STATE", "END"]] * 3
    s = Sequences.from_lists(lists, labels={"prompt": list("abcdef")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        c = chain(s, replicates=99)
        heat = transition_matrix_map(c)
        words = alt_text(c)
        transition_graph(c)
    assert any("*" in t for t in texts(heat)) and "undefined" in texts(heat)
    assert "Jeffreys" in heat.get_supxlabel() and "END: " in words and "never left" in words


def test_threshold():
    with pytest.raises(DynstatError, match="S404"):
        transition_graph(made(2), threshold=1.0)
