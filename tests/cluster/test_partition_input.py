"""What cannot be clustered is refused with its name, and what may mislead is said."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from dynstat.cluster import Partition, as_features, cut_tree, gaussian_mixture, hdbscan, hierarchical, kmeans
from dynstat.errors import DynstatError, DynstatWarning

X = np.random.default_rng(0).normal(size=(6, 2))
FRAME = pd.DataFrame(X, [f"m{i}" for i in range(6)], ["speed", "turn"]).rename_axis("model")
MAKERS = [
    lambda d: hierarchical(d, k=2),
    lambda d: kmeans(d, 2),
    lambda d: gaussian_mixture(d, 2),
    lambda d: hdbscan(d, 2),
]


def refused(code, call, *words):
    with pytest.raises(DynstatError) as caught:
        call()
    assert caught.value.code == code
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("make", MAKERS)
def test_input_that_every_method_refuses(make):
    bad = FRAME.copy()
    bad.loc["m3", "turn"] = np.nan
    bad.loc["m4", "speed"] = -np.inf
    refused("S405", lambda: make(bad), "m3: turn is nan", "m4: speed is -inf")
    refused("S405", lambda: make(FRAME * 0), "speed, turn")
    refused("S405", lambda: make(FRAME.iloc[:1]), "1 model")
    refused("S405", lambda: make(FRAME.iloc[:0]), "0 items")
    refused("S407", lambda: make(FRAME.rename({"m1": "m0"})), "m0")
    refused("S404", lambda: make(FRAME.assign(name="a")), "name")
    refused("S404", lambda: make(np.zeros((2, 2, 2))), "3 dims")
    refused("S404", lambda: make([["a", "b"]]))
    refused("S404", lambda: make(X + 1j))
    refused("S405", lambda: make(X * 1e200), "too large")
    refused("S405", lambda: make(X * 1e-200), "no feature varies")
    refused("S405", lambda: make(np.ma.masked_greater(X, 1.0)), "is nan")


@pytest.mark.filterwarnings("ignore:all items are noise")
@pytest.mark.parametrize("make", MAKERS)
def test_a_constant_feature_is_named_and_changes_nothing(make):
    with pytest.warns(DynstatWarning, match="kept: flat"):
        with_it = make(FRAME.assign(flat=3.0))
    # A singular covariance is a matter of its own: only shapes without one are compared.
    if with_it.method != "gaussian_mixture":
        assert with_it.labels.tolist() == make(FRAME).labels.tolist()


@pytest.mark.filterwarnings("ignore:all items are noise")
def test_fewer_items_than_clusters():
    refused("S405", lambda: hierarchical(FRAME, k=7), "6 models", "7 clusters")
    refused("S405", lambda: kmeans(FRAME, 7), "6 models")
    refused("S405", lambda: kmeans(np.repeat(X[:2], 3, axis=0), 3), "2 different items")
    refused("S405", lambda: gaussian_mixture(FRAME, 7))
    refused("S405", lambda: hdbscan(FRAME, 7), "6 models", "one cluster")
    refused("S405", lambda: hierarchical(FRAME.iloc[:2], gap=True))
    refused("S405", lambda: cut_tree(hierarchical(FRAME, k=2).linkage, 9))
    refused("S405", lambda: gaussian_mixture(FRAME, 3, covariance="full"), "singular")
    for make in MAKERS[:3]:
        part = make(FRAME)
        refused("S405", lambda part=part: part.recluster(X[:1]))
    assert hdbscan(FRAME, 2).recluster(X[:1]).tolist() == [-1]


def test_arguments():
    refused("S404", lambda: hierarchical(FRAME, "wards", k=2), "wards", "ward")
    refused("S404", lambda: hierarchical(FRAME, "ward", k=2, metric="cityblock"), "Euclidean")
    refused("S404", lambda: hierarchical(FRAME, "average", k=2, metric="manhattan"), "cityblock")
    refused("S404", lambda: hierarchical(FRAME), "k=")
    refused("S404", lambda: hierarchical(FRAME, k=2, gap=True))
    refused("S404", lambda: hierarchical(FRAME, height=-1.0))
    refused("S404", lambda: hierarchical(FRAME, height="high"))
    refused("S405", lambda: hierarchical(np.eye(4), gap=True), "one height")
    refused("S404", lambda: hierarchical(FRAME, k=0))
    refused("S404", lambda: hierarchical(FRAME, k=2.5))
    refused("S404", lambda: kmeans(FRAME, 2, n_init=0))
    refused("S404", lambda: kmeans(FRAME, 2, rng=-1))
    refused("S404", lambda: kmeans(FRAME, 2, rng="a"))
    refused("S404", lambda: gaussian_mixture(FRAME, "two"))
    refused("S404", lambda: gaussian_mixture(FRAME, 2, covariance=3))
    refused("S404", lambda: gaussian_mixture(FRAME, 2, covariance="round"))
    refused("S404", lambda: gaussian_mixture(FRAME, []))
    refused("S404", lambda: gaussian_mixture(FRAME, 2, n_init=0))
    refused("S404", lambda: hdbscan(FRAME, 1))
    refused("S404", lambda: hdbscan(FRAME, 2, min_samples=0))
    refused("S404", lambda: hdbscan(FRAME, 2, selection="all"))
    refused("S404", lambda: hdbscan(FRAME, 2, epsilon=-1))
    refused("S404", lambda: hdbscan(FRAME, 2, metric="sound"))


def test_distances_without_a_value_name_the_items():
    flat = FRAME.copy()
    flat.loc["m2"] = 1.0
    refused("S405", lambda: hierarchical(flat, "average", k=2, metric="correlation"), "m0, m2")


def test_inversions_are_said_and_heights_then_refused():
    triangle = pd.DataFrame([[0.0, 0], [1, 0], [0.5, 0.9]])
    with pytest.warns(DynstatWarning, match="inversion"):
        assert hierarchical(triangle, "centroid", k=2).labels.tolist() == [0, 0, 1]
    refused("S404", lambda: hierarchical(triangle, "centroid", gap=True), "inversion")
    refused("S404", lambda: hierarchical(triangle, "median", height=0.5), "inversion")


def test_noise_and_copies_are_said():
    with pytest.warns(DynstatWarning, match="all items are noise"):
        part = hdbscan(np.arange(6.0) ** 3, 4)
    assert part.noise.all()
    assert part.n_clusters == 0
    assert part.persistence.size == 0
    assert "6 noise" in str(part)
    assert part.tidy()["cluster"].tolist() == [-1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        part = hdbscan(np.repeat(X[:3], 4, axis=0), 3)
    assert any("9 of 12 items equal another" in str(w.message) for w in caught)
    assert np.isfinite(part.outlier_scores).all()


def test_given_partitions():
    refused("S407", lambda: Partition.given([1, 2], ["a"]))
    refused("S407", lambda: Partition.given([1, 2], ["a", "a"]))
    refused("S405", lambda: Partition.given([]))
    part = Partition.given([1, 2], ["a", "b"])
    refused("S404", lambda: part.recluster(X), "given")
    refused("S407", lambda: part.members(2), "0 to 1")


def test_labels_of_arrays_series_and_arrays_with_dims():
    import xarray as xr

    assert as_features(X).items == ("1", "2", "3", "4", "5", "6")
    one = as_features(FRAME["speed"])
    assert (one.items[0], one.names, one.item) == ("m0", ("speed",), "model")
    labelled = as_features(xr.DataArray(X, {"model": list("abcdef")}, ("model", "metric")))
    assert (labelled.items, labelled.item) == (tuple("abcdef"), "model")
    np.testing.assert_array_equal(labelled.values, X)
    wide = as_features(FRAME, standardize=True)
    np.testing.assert_allclose(wide.frame(), (FRAME - FRAME.mean()) / FRAME.std(ddof=1))
    assert as_features(wide) is wide


def test_missing_values_of_nullable_columns_are_named():
    frame = pd.DataFrame({"speed": pd.array([1, None, 3], dtype="Int64")}, index=list("abc"))
    refused("S405", lambda: as_features(frame), "b: speed is nan")


def test_nothing_heavy_is_imported_before_it_is_needed():
    names = "Partition UnitFeatures as_features cut_tree gaussian_mixture hdbscan hierarchical kmeans".split()
    code = (
        "import sys, dynstat.cluster as c\n"
        f"for n in {names}: getattr(c, n)\n"
        "heavy = ('sklearn', 'hdbscan', 'matplotlib', 'scipy.cluster', 'scipy.stats')\n"
        "print([m for m in sys.modules if m.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
