"""What cannot be answered is refused in words, in every function of the room."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dynstat.cluster import (
    Partition,
    UnitFeatures,
    adjusted_rand,
    agreement,
    anomaly_test,
    clusterboot,
    consensus,
    dip_test,
    fragmentation,
    gap_statistic,
    hierarchical,
    largest_gap_test,
    leave_one_out,
    pair_survival,
    stability_table,
    stability_test,
    unit_stability,
)
from dynstat.errors import DynstatError

X = np.random.default_rng(0).normal(size=(8, 2))
NAMED = hierarchical(pd.DataFrame(X, index=list("abcdefgh")), k=2)


def units(models=6, prompts=8, strata=None, gone=0):
    values = np.random.default_rng(1).normal(size=(models, prompts, 1))
    values[0, :gone] = np.nan
    names = [tuple(f"{c}{i}" for i in range(n)) for c, n in zip("mpf", values.shape, strict=True)]
    return UnitFeatures(values, *names, strata)


LONE = units(strata=tuple("abcdefgh"))
CASES = {
    "labels are no partition": (lambda: clusterboot(X, [0] * 8), "S404"),
    "nor for the test": (lambda: stability_test(X, [0] * 8), "S404"),
    "nor to leave one out": (lambda: leave_one_out(X, [0] * 8), "S404"),
    "nor for fragments": (lambda: fragmentation([0] * 8), "S404"),
    "an array has no units": (lambda: unit_stability(X, k=2), "S404"),
    "nor pairs": (lambda: pair_survival(X, k=2), "S404"),
    "nor anomalies": (lambda: anomaly_test(X), "S404"),
    "partitions without names": (lambda: agreement([NAMED, NAMED]), "S404"),
    "data of other items": (lambda: agreement({"a": NAMED, "b": NAMED}, data=X[:5]), "S407"),
    "labelled array of other items": (
        lambda: clusterboot(xr.DataArray(X, {"m": list("abcdefgx")}, ("m", "f")), NAMED),
        "S407",
    ),
    "labels in a table": (lambda: Partition.given(np.zeros((2, 2))), "S404"),
    "k in parts": (lambda: consensus(X, 2.5), "S404"),
    "k as text": (lambda: consensus(X, "ab"), "S404"),
    "k of pairs in parts": (lambda: pair_survival(units(), k=2.5), "S404"),
    "three in a pair": (lambda: PAIRS.exactly([("m0", "m1", "m2")]), "S407"),
    "Jaccards as text": (lambda: stability_table(STABLE, "ab"), "S404"),
    "half a k_max": (lambda: gap_statistic(X, k_max=2.5), "S404"),
    "negative errors": (lambda: gap_statistic(X, factor=-1), "S404"),
    "a cell that is missing": (lambda: largest_gap_test([1.0, 2.0, 9.0], cell=["a", None, "b"]), "S407"),
    "level in per cent": (lambda: largest_gap_test([1.0, 2.0, 9.0], level=95), "S404"),
    "level of pairs": (lambda: pair_survival(units(), k=2, level=95), "S404"),
    "one prompt": (lambda: unit_stability(units(prompts=1), k=2), "S403"),
    "one prompt a stratum": (lambda: largest_gap_test(LONE), "S403"),
    "and for agreement": (lambda: adjusted_rand(hierarchical(LONE, k=2), range(6), units=LONE), "S403"),
    "parts of a sample": (lambda: dip_test(X[:, 0], null_sets=99.5), "S404"),
}
PAIRS = pair_survival(units(), k=2, replicates=100, null_sets=299, null_replicates=50)
STABLE = unit_stability(units(), k=2, replicates=100)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_refused_in_words(case):
    run, code = CASES[case]
    with pytest.raises(DynstatError) as caught:
        run()
    assert caught.value.code == code


@pytest.mark.filterwarnings("ignore")
def test_replicates_without_a_model_are_left_out_of_agreement():
    some = units(prompts=8, gone=6)
    e = adjusted_rand(hierarchical(some, k=2), [0, 0, 0, 1, 1, 1], units=some, replicates=199)
    assert 99 < e.diagnostics["replicates"] < 199 and e.low <= e.value <= e.high
