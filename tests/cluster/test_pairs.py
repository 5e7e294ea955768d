"""Pair survival: against a slow version on the same clouds, and its error and power by simulation."""

import warnings

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from dynstat.cluster import UnitFeatures, co_clustering, pair_survival
from dynstat.cluster.pair_nulls import Clouds, rank_p
from dynstat.cluster.within_items import resampled_features
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.adjusted import false_discovery

pytestmark = pytest.mark.filterwarnings("ignore::dynstat.errors.DynstatWarning")


def tensor(values, **options):
    n, u, p = values.shape
    names = (tuple(f"{a}{i}" for i in range(k)) for a, k in (("m", n), ("u", u), ("f", p)))
    return UnitFeatures(values, *names, **options)


def cloud(seed, n=8, u=24, p=3, noise=2.0):
    """Items of one Gaussian, with correlated features; units with noise of their own and of the item."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(n, p)) @ np.array([[1, 0.6, 0], [0, 1, 0], [0, 0, 2.0]])[:p, :p]
    return tensor(items[:, None] + rng.normal(size=(1, u, p)) + noise * rng.normal(size=(n, u, p)))


def planted(seed, sizes=(8, 9), apart=6.0, inside=0.3, noise=1.0, u=36):
    rng = np.random.default_rng(seed)
    own = np.repeat(np.arange(len(sizes)), sizes)
    items = apart * np.eye(3)[: len(sizes)][own] + inside * rng.normal(size=(own.size, 3))
    return tensor(items[:, None] + noise * u**0.5 * rng.normal(size=(own.size, u, 3))), own


def test_clouds_equal_a_bootstrap_of_made_units():
    # X* + (X_b − X) is what a bootstrap of units x_iu − X_i + X*_i gives.
    units = cloud(1, n=6, u=10)
    raw, _ = resampled_features(units, 100, np.random.default_rng(3))
    centre = units.build()
    made = Clouds(units, centre, raw - centre, 3, "average", "euclidean", "rotation")
    freq = made.frequencies(2, np.random.default_rng(5))
    from dynstat.cluster.null_sets import structureless_many

    some = structureless_many(centre[None], "rotation", 2, np.random.default_rng(5))[0]
    weights = units.resampler().weights(100, np.random.default_rng(3))
    i, j = np.triu_indices(6, 1)
    for star, got in zip(some, freq, strict=True):
        np.testing.assert_allclose(np.cov(star.T), np.cov(centre.T), atol=1e-12)
        built = tensor(units.values - centre[:, None] + star[:, None]).build(weights)
        labels = np.stack([fcluster(linkage(x, "average"), 3, "maxclust") for x in built])
        np.testing.assert_allclose(got, np.sort(co_clustering(labels)[i, j])[::-1])


def test_rank_p_by_hand():
    null = np.array([[1.0, 0.9, 0.1], [0.8, 0.7, 0.6], [0.5, 0.2, 0.0]])
    rank, p, p_any = rank_p(np.array([0.7, 0.9, 0.7]), null)
    assert rank.tolist() == [3, 1, 3]
    # .9 is the highest: 1 of 3 clouds reach it. Three pairs reach .7: no cloud's third does.
    assert p.tolist() == [0.25, 0.5, 0.25]
    assert p_any.tolist() == [0.75, 0.5, 0.75]


def test_q_equals_r():
    # p.adjust(c(.01, .02, .03, .04, .5), "BH")
    np.testing.assert_allclose(false_discovery(np.array([0.5, 0.02, 0.01, 0.04, 0.03])), [0.5, *[0.05] * 4])


def test_nothing_survives_in_one_population():
    # Family-wise: q at most .05 in .05 of panels at most: 1.5 of 30; 6 are there by chance once in 300.
    for n, k, noise in ((6, 3, 2.0), (8, 2, 4.0)):
        found = [
            pair_survival(
                cloud(s, n=n, noise=noise), k=k, null_sets=139, null_replicates=100, replicates=100, rng=s
            )
            .table["q"]
            .min()
            <= 0.05
            for s in range(30)
        ]
        assert sum(found) <= 5


def test_planted_clusters_are_found_and_nothing_else():
    exact = hits = 0
    for s in range(4):
        units, own = planted(s)
        made = pair_survival(units, k=2, null_sets=299, null_replicates=100, replicates=200, rng=s)
        wanted = [(a, b) for i, a in enumerate(units.items) for b in units.items[i + 1 :]]
        wanted = [p for p in wanted if own[int(p[0][1:])] == own[int(p[1][1:])]]
        hits += len(set(made.pairs_found()) & set(wanted)) / len(wanted)
        assert set(made.pairs_found()) <= set(wanted)
        assert made.exactly(made.pairs_found())
        exact += made.exactly(wanted)
    assert hits >= 3 and exact >= 1


def test_coherent_takes_in_what_is_more_frequent():
    rng = np.random.default_rng(6)
    shift = np.zeros((16, 1, 2))
    shift[8:, 0, 0] = 10
    units = tensor(shift + 9 * rng.normal(size=(16, 24, 2)))
    options = {"k": 2, "null_sets": 199, "null_replicates": 100, "replicates": 300, "rng": 1}
    plain = pair_survival(units, **options).table
    closed = pair_survival(units, coherent=True, **options).table
    own = (plain["frequency"] >= 0.95) & (plain["q"] <= 0.05)
    assert plain["survives"].equals(own) and own.any() and not own.all()
    least = plain.loc[own, "frequency"].min()
    assert closed["survives"].equals(plain["frequency"] >= least)
    assert closed["survives"].sum() > own.sum()


def test_frequency_alone_shows_nothing_without_noise():
    # Hardly any noise: every cut of every cloud is found again in every replicate.
    with pytest.warns(DynstatWarning, match="that frequency alone shows nothing"):
        made = pair_survival(cloud(3, noise=0.01), k=3, null_sets=199, rng=0)
    assert (made.table["frequency"] >= 0.95).any()
    assert made.pairs_found() == () and made.exactly([])
    assert "no pair survives" in made.verdict


def test_result_reads_well():
    units, _ = planted(1)
    made = pair_survival(units, k=2, null_sets=199, null_replicates=100, replicates=200, rng=5)
    assert made.table["frequency"].is_monotonic_decreasing
    assert made.seed == 5 and made.n["null_sets"] == 199
    estimates = made.estimates()
    assert len(estimates) == 136 + 1
    top = estimates[f"together.{made.table['item_1'][0]}|{made.table['item_2'][0]}"]
    assert top.low <= top.value <= top.high and 0 < top.null["p"] <= 1
    assert estimates["surviving_pairs"].value == len(made.pairs_found())
    assert "Of 136 pairs" in str(made) and "Of 136 pairs" not in made.alt_text()
    assert list(made.tidy().columns)[2:5] == ["estimate", "conf.low", "conf.high"]
    assert made.glance()["survive"].item() == len(made.pairs_found())
    assert made.plot().axes
    again = pair_survival(units, k=2, null_sets=199, null_replicates=100, replicates=200, rng=5)
    assert again.table.equals(made.table)


def test_standardised_and_unpaired():
    units, _ = planted(2, sizes=(3, 3))
    wide = tensor(units.values * np.array([1, 100, 0.01]), standardize=True)
    narrow = tensor(units.values, standardize=True)
    a = pair_survival(wide, k=2, null_sets=99, null_replicates=100, paired=False, rng=1)
    b = pair_survival(narrow, k=2, null_sets=99, null_replicates=100, paired=False, rng=1)
    np.testing.assert_allclose(a.frequency, b.frequency)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"k": 1}, "S405"),
        ({"k": 8}, "S405"),
        ({"k": 2, "null_sets": 5}, "S404"),
        ({"k": 2, "method": "centroid"}, "S404"),
        ({"k": 2, "frequency": 0}, "S404"),
        ({"k": 2, "q": 1}, "S404"),
        ({"k": 2, "null": "wishful"}, "S404"),
        ({"k": 2, "null_replicates": 5000}, "S404"),
    ],
)
def test_bad_arguments(options, code):
    with pytest.raises(DynstatError) as caught:
        pair_survival(cloud(0), **options)
    assert caught.value.code == code


def test_one_unit_two_items_unknown_pair():
    with pytest.raises(DynstatError) as caught:
        pair_survival(cloud(0, u=1), k=2)
    assert caught.value.code == "S403"
    with pytest.raises(DynstatError) as caught:
        pair_survival(cloud(0, n=2), k=2)
    assert caught.value.code == "S405"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = pair_survival(cloud(0), k=2, null_sets=99, null_replicates=100)
    for pair in (("m0", "m0"), ("m0", "elsewhere")):
        with pytest.raises(DynstatError, match="no such pair"):
            made.exactly([pair])
