"""AU and BP: pvclust's arithmetic on its own counts, its tree and, within Monte-Carlo error, its counts."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynstat.cluster import multiscale_fit, pvclust
from dynstat.errors import DynstatError, DynstatWarning

ORACLES = Path(__file__).parents[1] / "oracles"
R = json.loads((ORACLES / "multiscale.json").read_text())
PLANTED = pd.read_csv(ORACLES / "cluster" / "planted.csv", index_col=0)
CASES = {
    "planted": (PLANTED, "average", "euclidean"),
    "ward": (PLANTED, "ward.D2", "euclidean"),
    "wide": (np.array(R["wide"]["data"]), "average", "correlation"),
}


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request):
    data, linkage, metric = CASES[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        return R[request.param], pvclust(data, method=linkage, metric=metric, replicates=2000, rng=7)


@pytest.mark.parametrize("name", sorted(CASES))
def test_fit_equals_pvclust_on_its_counts(name):
    reference = R[name]
    made = multiscale_fit(reference["count"], reference["r"], reference["nboot"])
    for column in made:
        np.testing.assert_allclose(
            made[column], reference["edges"][column], rtol=0, atol=1e-10, err_msg=column
        )


@pytest.mark.parametrize("at", range(len(R["odd"]["fits"])))
def test_fit_equals_msfit_at_the_edges(at):
    reference = R["odd"]["fits"][at]
    made = multiscale_fit([reference["count"]], R["odd"]["r"], R["odd"]["nboot"]).iloc[0]
    for name in ("si", "au", "bp"):
        assert made[name] == pytest.approx(reference["p"][name], abs=1e-10)
        assert made[f"se.{name}"] == pytest.approx(reference["se"][name], abs=1e-10)
    assert made["v"] == pytest.approx(reference["coef"]["v"], abs=1e-10)
    assert made["pchi"] == pytest.approx(reference["pchi"], abs=1e-10)


def test_tree_is_hclusts(case):
    reference, made = case
    np.testing.assert_allclose(made.linkage[:, 2], reference["height"], atol=1e-10)
    nodes: list[set[int]] = []
    for i, row in enumerate(reference["merge"]):
        nodes.append(set().union(*({-x} if x < 0 else nodes[x - 1] for x in row)))
        assert {made.items.index(m) + 1 for m in made.members(i)} == nodes[-1]


def test_scales_and_counts_agree_within_monte_carlo_error(case):
    reference, made = case
    np.testing.assert_allclose(made.scales, reference["r"], atol=1e-12)
    ours, theirs = made.count.to_numpy() / 2000, np.array(reference["count"]) / reference["nboot"]
    pooled = (ours + theirs) / 2
    error = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-6) * (1 / 2000 + 1 / reference["nboot"]))
    # 170 comparisons at most: 4.5 errors are passed by chance once in a thousand runs; the seed is fixed.
    assert np.max(np.abs(ours - theirs) / error) < 4.5
    gap = made.edges["au"] - np.array(reference["edges"]["au"])
    both = np.hypot(made.edges["se.au"], reference["edges"]["se.au"])
    assert np.all(np.abs(gap) < 5 * both + 1e-6)


def test_counts_equal_a_slow_bootstrap():
    from scipy.cluster.hierarchy import linkage

    x = np.random.default_rng(3).normal(size=(7, 25))
    made = pvclust(x, replicates=150, scales=(0.6, 1.0, 1.4), rng=5)

    def sets(tree):
        nodes = [frozenset([i]) for i in range(7)]
        for a, b in tree[:, :2].astype(int):
            nodes.append(nodes[a] | nodes[b])
        return nodes[7:]

    wanted, rng = sets(linkage(x, "average")), np.random.default_rng(5)
    count = np.zeros((6, 3), dtype=int)
    for s, size in enumerate((15, 25, 35)):
        for weights in rng.multinomial(size, np.full(25, 1 / 25), size=150):
            again = set(sets(linkage(np.repeat(x, weights, axis=1), "average")))
            count[:, s] += [node in again for node in wanted]
    assert made.count.to_numpy().tolist() == count.tolist()


def test_correlation_equals_that_of_the_drawn_columns():
    from dynstat.cluster.features import as_features
    from dynstat.cluster.multiscale import _parts

    x = np.random.default_rng(1).normal(5, 1, size=(6, 12))
    weights = np.random.default_rng(2).multinomial(12, np.full(12, 1 / 12), size=3)
    above = np.triu_indices(6, 1)
    for metric in ("correlation", "abscor", "uncentered", "cityblock"):
        parts, finish = _parts(as_features(x), metric, "average")
        for w, made in zip(weights, finish(weights @ parts), strict=True):
            y = np.repeat(x, w, axis=1)
            r = np.corrcoef(y)[above]
            unit = y / np.linalg.norm(y, axis=1, keepdims=True)
            wanted = {
                "correlation": 1 - r,
                "abscor": 1 - np.abs(r),
                "uncentered": 1 - (unit @ unit.T)[above],
                "cityblock": np.abs(y[above[0]] - y[above[1]]).sum(axis=1),
            }[metric]
            np.testing.assert_allclose(made, wanted, atol=1e-12)


def test_result_reads_well():
    with pytest.warns(DynstatWarning, match="AU over 6 features is coarse"):
        made = pvclust(PLANTED, replicates=200, rng=1)
    table = made.tidy()
    assert table["size"].iloc[-1] == 17 and "m01" in table["members"].iloc[-1]
    assert made.glance()["features"].item() == 6
    assert set(made.estimates()) == {f"au.{i}" for i in range(15)}
    assert all(e.low <= e.value <= e.high for e in made.estimates().values())
    picked = made.pick(0.95)
    assert all(len(set(a) & set(b)) == 0 for a in picked for b in picked if a != b)
    assert "Multiscale bootstrap over 6 features of 17" in str(made)
    assert "17 items" in made.alt_text()
    assert made.plot().axes


@pytest.mark.parametrize(
    ("data", "options", "code"),
    [
        (np.eye(5), {"metric": "hamming"}, "S404"),
        (np.eye(5), {"method": "centroid"}, "S404"),
        (np.eye(5), {"method": "ward", "metric": "correlation"}, "S404"),
        (np.eye(5), {"replicates": 5}, "S404"),
        (np.eye(5), {"scales": (0.1,)}, "S404"),
        (np.eye(5), {"scales": ()}, "S404"),
        (np.eye(2), {}, "S405"),
        (np.arange(4.0), {}, "S403"),
        (np.array([[1.0, 1, 1], [1, 2, 3], [3, 1, 2]]), {"metric": "correlation"}, "S405"),
    ],
)
def test_bad_input(data, options, code):
    with pytest.raises(DynstatError) as caught:
        pvclust(data, **options)
    assert caught.value.code == code


def test_counts_that_do_not_fit():
    with pytest.raises(DynstatError, match="counts do not fit"):
        multiscale_fit([[5, 200]], [0.5, 1.0], 100)
