"""The resampler draws whole units within strata, and can be repeated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.inference.resample import Resampler, as_generator, monte_carlo_p


def design(n_strata=3, per=4, rows=2):
    strata = np.repeat([f"c{i}" for i in range(n_strata)], per * rows)
    units = np.repeat([f"c{i}p{j}" for i in range(n_strata) for j in range(per)], rows)
    return units, strata


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 4), per=st.integers(1, 5), rows=st.integers(1, 3))
def test_a_bootstrap_sample_keeps_strata_sizes_and_whole_units(seed, n, per, rows):
    units, strata = design(n, per, rows)
    r = Resampler.of(units, strata)
    for index in r.bootstrap(3, seed):
        assert np.bincount(np.unique(strata, return_inverse=True)[1][index]).tolist() == [per * rows] * n
        _, counts = np.unique(index, return_counts=True)
        for unit in np.unique(units[index]):
            of_unit = np.flatnonzero(units == unit)
            assert len({int(np.sum(index == i)) for i in of_unit}) == 1
        assert counts.sum() == index.size


def test_weights_have_the_multinomial_mean_and_variance():
    r = Resampler.of(np.arange(10))
    w = r.weights(20_000, 1)
    assert w.sum(1).tolist() == [10] * 20_000
    # Standard error of a mean is sqrt(.9 / 20000) = .0067; of a variance about .011.
    assert np.allclose(w.mean(0), 1.0, atol=0.03) and np.allclose(w.var(0), 0.9, atol=0.05)


def test_jackknife_groups_take_one_unit_of_every_stratum_and_cover_all():
    units, strata = design()
    r = Resampler.of(units, strata)
    groups = r.jackknife_groups()
    assert len(groups) == 4
    assert sorted(np.concatenate(groups).tolist()) == list(range(r.n_units))
    for g in groups:
        assert sorted(set(r.stratum_of[g].tolist())) == [0, 1, 2]
        assert r.without(g).size == units.size - 3 * 2


def test_unequal_strata_cannot_be_jackknifed_by_group():
    with pytest.raises(DynstatError) as e:
        Resampler.of(["a", "b", "c"], ["x", "x", "y"]).jackknife_groups()
    assert e.value.code == "S403"


def test_a_unit_in_two_strata_is_an_error():
    with pytest.raises(DynstatError) as e:
        Resampler.of(["a", "a"], ["x", "y"])
    assert e.value.code == "S404"


def test_permutations_stay_within_strata():
    units, strata = design()
    r = Resampler.of(units, strata)
    orders = np.array(list(r.permutations(50, 3)))
    assert np.all(r.stratum_of[orders] == r.stratum_of)
    assert np.all(np.sort(orders, axis=1) == np.arange(r.n_units))
    assert len({tuple(o) for o in orders.tolist()}) > 40


def test_a_seed_repeats_and_a_missing_seed_is_drawn_and_recorded():
    r = Resampler.of(np.arange(8))
    assert np.array_equal(r.weights(5, 7), r.weights(5, 7))
    generator, seed = as_generator(None)
    assert seed is not None
    assert generator.random() == np.random.default_rng(seed).random()
    own = np.random.default_rng(1)
    assert as_generator(own) == (own, None)


def test_monte_carlo_p_is_never_zero():
    assert monte_carlo_p(10.0, np.zeros(99)) == pytest.approx(0.01)
    assert monte_carlo_p(0.0, np.zeros(99)) == 1.0


@pytest.mark.parametrize("seed", ["x", -3, 1.5, True])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(DynstatError, match="S404"):
        as_generator(seed)
    assert as_generator(np.int64(3))[1] == 3
