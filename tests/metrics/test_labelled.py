"""The definitions over a dataset: right layer, right tokens, right options, right labels."""

import json

import numpy as np
import pytest
import xarray as xr

from dynstat.dataset.build import build
from dynstat.dataset.verify import verify
from dynstat.errors import DynstatError
from dynstat.metrics import labelled as lab
from dynstat.metrics import runs
from dynstat.metrics.distribution import entropy, synchronisation, top1_probability, top2_probability
from dynstat.metrics.nulls import length_matched
from dynstat.metrics.regimes import regime
from dynstat.metrics.selection import at_layer, layer_positions
from dynstat.metrics.states import STATES, Thresholds
from dynstat.metrics.trajectory import ct, step_length, turning_angle

M, P, S, T, L, V = 2, 3, 2, 20, 5, 30
LAYERS = (5, 4)  # the second model lacks the last layer
N_PROMPT, LENGTH = (4, 5, 6), (20, 16, 18)


def make(stored=range(L)):
    rng = np.random.default_rng(1)
    h = rng.normal(size=(M, P, S, L, T, 8))
    h[0, 0, 0, :, 12:] = h[0, 0, 0, :, 11:12]  # one run freezes
    z = np.moveaxis(rng.normal(size=(M, P, S, L, T, V)), 3, 4) * 3
    values = {
        "step_length": np.moveaxis(step_length(h), 3, 4),
        "turning_angle": np.moveaxis(turning_angle(h), 3, 4),
        "entropy": entropy(z),
        "top1_probability": top1_probability(z),
        "top2_probability": top2_probability(z),
        "top1_id": z.argmax(-1),
    }
    sync = np.full((M, P, S, T, L), np.nan)
    sync[..., :-1] = synchronisation(z[..., :-1, :], z[..., 1:, :])
    sync[1, ..., 3:] = np.nan
    quality = np.zeros((M, P, S, T, L), np.int8)
    for p, n in enumerate(LENGTH):
        quality[:, p, :, n:] = 1
    quality[1, ..., 4] = 5
    token = np.broadcast_to(np.arange(T), (M, P, S, T))
    special = (token == 0) | (token == 9)
    values |= {
        "synchronisation": sync,
        "quality": quality,
        "token_id": rng.integers(0, V, size=(M, P, S, T)),
        "phase": token >= np.array(N_PROMPT)[None, :, None, None],
        "is_special": special,
        "is_first": token == 0,
        "log_probability": np.where(token == 0, np.nan, -9 - rng.random((M, P, S, T))),
        "text": np.full((M, P, S), "naïve text", dtype=object),
        "n_prompt": np.broadcast_to(np.array(N_PROMPT)[None, :, None], (M, P, S)),
        "n_generated": np.broadcast_to(np.subtract(LENGTH, N_PROMPT)[None, :, None], (M, P, S)),
        "stop_reason": np.full((M, P, S), "budget", dtype=object),
        "first_end_of_text": np.full((M, P, S), -1),
    }
    ids = {"revision": "r", "family": "f", "parameters": 1, "weights_sha256": "0", "tokenizer_sha256": "0",
           "dtype": "float32", "attn_implementation": "eager", "source": "here"}  # fmt: skip
    prompt = {
        "text": "t",
        "category": "c",
        "template": "",
        "split": "pilot",
        "answers": [],
        "distractors": [],
    }
    sample = {"seed": 1, "temperature": 1.0, "budget": 16, "mode": "generated"}
    ds = build(
        models=[
            {**ids, "id": f"m{i}", "architecture": f"a{i}", "vocabulary": V, "n_layers": n}
            for i, n in enumerate(LAYERS)
        ],  # fmt: skip
        prompts=[{**prompt, "id": f"p{i}"} for i in range(P)],
        samples=[{**sample, "id": f"s{i}"} for i in range(S)],
        n_tokens=T,
        n_layers=L,
        values=values,
    )
    return ds.isel(layer=list(stored))


@pytest.fixture(scope="module")
def ds():
    return make()


def last(m):
    return LAYERS[m] - 1


def series(ds, m, p, s, layer, alignment="causal"):
    """ct of one run as the defaults choose it, by hand."""
    one = ds.isel(model=m, prompt=p, sample=s, layer=layer)
    values = ct(one.step_length.values, one.turning_angle.values, alignment=alignment)
    keep = [t for t in range(N_PROMPT[p], LENGTH[p]) if t != 9]
    return values[keep]


def each():
    return np.ndindex(M, P, S)


def test_ct_over_the_dims(ds):
    got = lab.ct(ds, "incoming")
    assert got.dims == ("model", "prompt", "sample", "token", "layer") and got.attrs["units"] == "rad"
    one = ds.isel(model=1, prompt=2, sample=0, layer=2)
    np.testing.assert_array_equal(
        got.values[1, 2, 0, :, 2],
        ct(one.step_length.values, one.turning_angle.values, alignment="incoming"),
    )
    assert json.loads(got.attrs["options"])["alignment"] == "incoming"
    shuffled = ds.transpose("layer", "token", "sample", "prompt", "model")
    xr.testing.assert_equal(lab.ct(shuffled, "incoming").reset_coords(drop=True), got.reset_coords(drop=True))


@pytest.mark.parametrize("alignment", ["causal", "centred", "incoming", "outgoing"])
def test_ratio_norm_of_the_last_layer_and_generated_tokens(ds, alignment):
    got = lab.run_metric(ds, {"metric": "ratio_norm@1", "alignment": alignment})
    assert got.dims == ("model", "prompt", "sample") and got.attrs["definition"] == "ratio_norm@1"
    assert list(got.model.values) == ["m0", "m1"] and "category" in got.coords
    for i in each():
        assert got.values[i] == pytest.approx(runs.ratio_norm(series(ds, *i, last(i[0]), alignment)))


@pytest.mark.parametrize(
    ("metric", "kernel", "options"),
    [
        ("ratio_norm", lambda x: np.log(runs.ratio_norm(x)), {"scale": "log"}),
        ("q95_median", runs.q95_median, {}),
        ("cv", runs.coefficient_of_variation, {}),
        ("gini", runs.gini, {}),
        ("late_ct", lambda x: runs.late_ct(x, np.ones(len(x), bool), share=0.5), {"share": 0.5}),
        ("late_ct", lambda x: runs.late_ct(x, np.ones(len(x), bool), last=3), {"last": 3}),
        ("flux", runs.flux, {}),
        (
            "flux",
            lambda x: runs.flux(x, aggregate="sum") / len("naïve text".encode()),
            {"aggregate": "per_byte"},
        ),
        ("debt", lambda x: runs.debt(x, mu0=2.5, sigma0=1), {"mu0": 2.5, "sigma0": 1.0}),
        ("regime", lambda x: regime(runs.ratio_norm(x), mode="midpoint"), {"mode": "midpoint"}),
    ],
)
def test_metrics_made_from_ct(ds, metric, kernel, options):
    got = lab.run_metric(ds, {"metric": f"{metric}@1", **options})
    for i in each():
        np.testing.assert_allclose(got.values[i], kernel(series(ds, *i, last(i[0]))), err_msg=str(i))


def test_layers(ds):
    np.testing.assert_array_equal(layer_positions(ds), [4, 3])
    np.testing.assert_array_equal(layer_positions(ds, 4), [4, -1])
    np.testing.assert_array_equal(layer_positions(ds, 0.5), [2, 1])  # 2/4; 1/3 and 2/3 are as near
    got = lab.run_metric(ds, {"metric": "ratio_norm@1", "layer": 4})
    assert np.isnan(got.values[1]).all()
    for i in each():
        if i[0] == 0:
            assert got.values[i] == pytest.approx(runs.ratio_norm(series(ds, *i, 4)))
    ids = at_layer(ds["top1_id"], layer_positions(ds, 4))
    assert (ids.values[1] == -1).all() and ids.dims == ("model", "prompt", "sample", "token")


def test_layers_by_number_when_few_are_stored():
    few = make([0, 2, 3, 4])
    np.testing.assert_array_equal(layer_positions(few, 2), [1, 1])
    np.testing.assert_array_equal(layer_positions(few), [3, 2])
    with pytest.raises(DynstatError):
        layer_positions(few, 1)
    with pytest.raises(DynstatError) as error:
        layer_positions(make([0, 1]))
    assert "m0" in error.value.where
    got = lab.run_metric(few, {"metric": "commitment_time@1"})
    keep = [t for t in range(5, 16) if t != 9]
    ids = few.top1_id.values[1, 1, 0][keep][:, :3]  # layers 0, 2, 3 of the model of four
    settled = [
        next(k for k, i in zip((0, 2, 3), range(3), strict=True) if (row[i:] == row[2]).all()) for row in ids
    ]
    assert got.values[1, 1, 0] == pytest.approx(np.mean(settled))
    depth = lab.run_metric(few, {"metric": "commitment_time@1", "relative": True})
    assert depth.values[1, 1, 0] == pytest.approx(np.mean(settled) / 3)
    assert got.max() <= 4 and set(np.unique(few.layer.values)) == {0, 2, 3, 4}


def test_tokens(ds):
    both = lab.run_metric(ds, {"metric": "ratio_norm@1", "phase": "all", "special": "keep", "first": "keep"})
    one = ds.isel(model=0, prompt=1, sample=1, layer=4)
    whole = ct(one.step_length.values, one.turning_angle.values)[: LENGTH[1]]
    assert both.values[0, 1, 1] == pytest.approx(runs.ratio_norm(whole))
    # The first token leaves with every value that it enters.
    for alignment, from_token in (("causal", 3), ("incoming", 2)):
        options = {"phase": "all", "special": "keep", "alignment": alignment}
        got = lab.run_metric(ds, {"metric": "flux@1", **options})
        values = ct(one.step_length.values, one.turning_angle.values, alignment=alignment)
        assert got.values[0, 1, 1] == pytest.approx(np.nanmean(values[from_token : LENGTH[1]]))
    prompt = lab.run_metric(ds, {"metric": "flux@1", "phase": "prompt"})
    assert prompt.values[0, 1, 1] == pytest.approx(whole[3:5].mean())


def test_equal_token_count(ds):
    got = lab.run_metric(ds, {"metric": "ratio_norm@1", "tokens": 11})
    for i in each():
        values = series(ds, *i, last(i[0]))
        if len(values) >= 11:
            assert got.values[i] == pytest.approx(runs.ratio_norm(values[:11]))
        else:
            assert np.isnan(got.values[i])
    assert np.isnan(got.values[:, 1]).all() and np.isfinite(got.values[:, 0]).all()


def test_equal_count_counts_values(ds):
    """Fifteen tokens are chosen; the incoming step leaves the last without a value."""
    for tokens, there in (
        (15, {"causal": True, "incoming": False}),
        (14, {"causal": True, "incoming": True}),
    ):
        for alignment, want in there.items():
            spec = {"metric": "ratio_norm@1", "tokens": tokens, "alignment": alignment}
            assert np.isfinite(lab.run_metric(ds, spec).values[1, 0, 1]) == want


def test_clipped_mad_by_scope(ds):
    def got(scope):
        spec = {"metric": "ratio_norm@1", "normalisation": "CLIPPED_MAD", "scope": scope, "clip": 3}
        return lab.run_metric(ds, spec).values[1, 2, 1]

    def clip(x, pool):
        m = np.median(pool)
        s = 1.4826 * np.median(np.abs(pool - m))
        return np.clip(x, m - 3 * s, m + 3 * s)

    x = series(ds, 1, 2, 1, 3)
    model = np.concatenate([series(ds, 1, p, s, 3) for p in range(P) for s in range(S)])
    panel = np.concatenate([series(ds, *i, last(i[0])) for i in each()])
    for scope, pool in (("run", x), ("model", model), ("panel", panel)):
        assert got(scope) == pytest.approx(runs.ratio_norm(clip(x, pool)))


def test_ratio_norm_z_is_that_of_its_null(ds):
    spec = {"metric": "ratio_norm_z@1", "replicates": 50, "seed": 7}
    got = lab.run_metric(ds, spec)
    values = np.full((M, P, S, T), np.nan)
    for i in each():
        x = series(ds, *i, last(i[0]))
        values[i][: len(x)] = x
    np.testing.assert_allclose(got.values, length_matched(values, replicates=50, rng=7).z)
    xr.testing.assert_identical(lab.run_metric(ds, spec), got)


def test_companions_stand_beside(ds):
    got = lab.companions(ds, {"metric": "ratio_norm@1"})
    assert set(got.data_vars) >= {"n", "mean", "max", "median", "q95", "ratio_norm"}
    xr.testing.assert_allclose(
        got["ratio_norm"].drop_attrs(), lab.run_metric(ds, {"metric": "ratio_norm@1"}).drop_attrs()
    )
    assert got["n"].values[0, 0, 0] == 15


def test_run_mean(ds):
    got = lab.run_metric(ds, {"metric": "run_mean@1", "of": "entropy", "layer": 1})
    keep = [t for t in range(5, 16) if t != 9]
    assert got.values[1, 1, 0] == pytest.approx(ds.entropy.values[1, 1, 0, keep, 1].mean())
    assert got.attrs["units"] == "nat"
    token = lab.run_metric(ds, {"metric": "run_mean@1", "of": "log_probability"})
    assert token.values[1, 1, 0] == pytest.approx(ds.log_probability.values[1, 1, 0, keep].mean())


def test_repetition_and_commitment(ds):
    again = ds.copy()
    again["token_id"] = ds.token_id.where(ds.phase == 0, 7)
    got = lab.run_metric(again, {"metric": "repetition_rate@1"})
    n = LENGTH[0] - N_PROMPT[0] - 3
    assert got.values[0, 0, 0] == pytest.approx((n - 1) / n)

    depth = lab.run_metric(ds, {"metric": "commitment_time@1"})
    keep = [t for t in range(5, 16) if t != 9]
    times = []
    for t in keep:
        ids = ds.top1_id.values[1, 1, 0, t, :4]
        times.append(next(i for i in range(4) if (ids[i:] == ids[3]).all()))
    assert depth.values[1, 1, 0] == pytest.approx(np.mean(times))
    relative = lab.run_metric(ds, {"metric": "commitment_time@1", "relative": True})
    assert relative.values[1, 1, 0] == pytest.approx(np.mean(times) / 3)

    along = lab.run_metric(
        ds, {"metric": "commitment_time@1", "order": "token", "kind": "first_above", "tau": 0.3}
    )
    p1 = ds.top1_probability.values[1, 1, 0, keep, 3]
    hits = np.flatnonzero(p1 >= 0.3)
    assert (along.values[1, 1, 0] == hits[0]) if hits.size else np.isnan(along.values[1, 1, 0])


def test_kappa_and_gd_ratio(ds):
    poles = lab.kappa(ds)
    h = ds.entropy.values[0, 2, 1, 7, 3]
    assert poles.kappa_G.values[0, 2, 1, 7, 3] == pytest.approx(1 - h / np.log(V))
    p1, p2 = (ds[n].values[0, 2, 1, 7, 3] for n in ("top1_probability", "top2_probability"))
    assert poles.kappa_D.values[0, 2, 1, 7, 3] == pytest.approx(p2 / p1)
    assert poles.kappa_sync.values[1, 2, 1, 7] == pytest.approx(
        ds.synchronisation.values[1, 2, 1, 7, :3].mean()
    )
    g, d = [], []
    for p in range(P):
        keep = [t for t in range(N_PROMPT[p], LENGTH[p]) if t != 9]
        g.append(poles.kappa_G.values[1, p][:, keep, :4].ravel())
        d.append(poles.kappa_D.values[1, p][:, keep, :4].ravel())
    want = np.concatenate(g).mean() / np.concatenate(d).mean()
    assert lab.gd_ratio(ds).values[1] == pytest.approx(want)
    one_run = lab.run_metric(ds, {"metric": "gd_ratio@1", "layer": "last", "aggregate": "log"})
    keep = [t for t in range(5, 16) if t != 9]
    g1, d1 = (poles[k].values[1, 1, 0, keep, 3].mean() for k in ("kappa_G", "kappa_D"))
    assert one_run.values[1, 1, 0] == pytest.approx(np.log(g1 / d1))
    assert lab.gd_ratio(ds, by="run").dims == ("model", "prompt", "sample")
    assert lab.kappa(ds.assign(concentration=ds.top1_probability), G="top_k").kappa_G.max() <= 1


def test_states(ds):
    thresholds = lab.learn_state_thresholds(ds)
    turbulence = lab.ct(ds).values
    pool = np.concatenate([
        turbulence[m, p][:, [t for t in range(N_PROMPT[p], LENGTH[p]) if t != 9], : LAYERS[m]].ravel()
        for m in range(M) for p in range(P)
    ])  # fmt: skip
    assert thresholds.turbulence[0] == pytest.approx(np.nanquantile(pool, 0.75))
    codes = lab.states(ds, thresholds)
    assert codes.dtype == np.int8 and codes.attrs["flag_meanings"].split() == list(STATES)
    assert Thresholds.from_dict(json.loads(codes.attrs["thresholds"])) == thresholds
    xr.testing.assert_identical(lab.states(ds, thresholds.as_dict()), codes)
    ok = ds.quality.values == 0
    assert (codes.values[~ok] == -1).all() and (codes.values[:, :, :, :2] == -1).all()
    # Every last layer has states: it takes the last pair's synchronisation.
    assert (codes.values[0, 1, 1, 3:16, 4] >= 0).all() and (codes.values[1, 1, 1, 3:16, 3] >= 0).all()
    shares = lab.state_shares(ds, codes)
    np.testing.assert_allclose(shares.sum("state"), 1)
    generated = ok & (ds.phase.values == 1)[..., None] & (ds.is_special.values == 0)[..., None]
    stable = (codes.values == 0)[0] & generated[0]
    want = stable.sum() / (generated[0] & (codes.values[0] >= 0)).sum()
    assert shares.sel(model="m0", state="STABLE") == pytest.approx(want)


def test_regimes_collapse_and_rivalry(ds):
    codes = lab.regimes(ds, "cuts", cuts=[1.2, 1.5, 2.0], layer=1)
    ratio = lab.run_metric(ds, {"metric": "ratio_norm@1", "layer": 1})
    np.testing.assert_array_equal(codes.values, regime(ratio.values, mode="cuts", cuts=[1.2, 1.5, 2]))
    assert codes.attrs["flag_meanings"].startswith("UNASSIGNED UNDERACTIVE")
    low = lab.collapse(ds, enter=0.3, leave=0.5)
    h = ds.entropy.values[1, 1, 0, :, 3] / np.log(V)
    assert (low.values[1, 1, 0][h < 0.3][h[h < 0.3] >= 0] != 0).all()
    assert (low.values[1, 1, 0, :5] == -1).all() and low.values[1, 1, 0, 9] == -1
    close = lab.rivalry(ds).values[1, 1, 0, 10:16]
    p = ds.top2_probability.values[1, 1, 0, 10:16, 3] / ds.top1_probability.values[1, 1, 0, 10:16, 3]
    np.testing.assert_array_equal(close, p > 0.5)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda ds: lab.run_metric(ds, {"metric": "entropy@1"}), "Y003"),
        (lambda ds: lab.run_metric(ds, {"metric": "ratio_norm@1", "colour": 1}), "Y002"),
        (lambda ds: lab.run_metric(ds, {"metric": "ratio_norm@1", "layer": 17}), "S404"),
        (lambda ds: lab.run_metric(ds, {"metric": "debt@1"}), "S404"),
        (lambda ds: lab.run_metric(ds, {"metric": "run_mean@1", "of": "dispersion"}), "D103"),
        (lambda ds: lab.run_metric(ds, {"metric": "flux@1", "aggregate": "per_byte", "tokens": 4}), "S404"),
        (lambda ds: lab.ct(ds.drop_vars("turning_angle")), "D103"),
        (lambda ds: lab.run_metric(ds.drop_vars("is_special"), {"metric": "ratio_norm@1"}), "D103"),
        (lambda ds: lab.companions(ds, {"metric": "run_mean@1"}), "Y003"),
        (lambda ds: lab.gd_ratio(ds, by="prompt"), "S404"),
        (lambda ds: lab.kappa(ds, G="top_k"), "D103"),
    ],
)
def test_errors(ds, call, code):
    with pytest.raises(DynstatError) as error:
        call(ds)
    assert error.value.code == code


def test_last_is_the_models_own_last_layer_however_few_are_stored(ds):
    spec = {"metric": "ratio_norm@1"}
    with pytest.raises(DynstatError, match="S404") as e:
        lab.run_metric(ds.isel(layer=[2]), spec)
    assert "m0, m1" in str(e.value)
    only = ds.isel(model=[1], layer=[3])
    whole = lab.run_metric(ds, spec).values[1:]
    np.testing.assert_array_equal(lab.run_metric(only, spec).values, whole)


def test_a_dim_that_selection_dropped_is_one_clear_error(ds):
    for lost in (ds.sel(model="m0"), ds.isel(layer=4)):
        with pytest.raises(DynstatError, match="D104") as e:
            lab.run_metric(lost, {"metric": "ratio_norm@1"})
        assert "lists" in e.value.mend


def test_a_metric_can_be_named_by_a_word(ds):
    spec = {"metric": "ratio_norm@1"}
    np.testing.assert_array_equal(lab.run_metric(ds, "ratio_norm").values, lab.run_metric(ds, spec).values)
    assert set(lab.companions(ds, "ratio_norm@1")) == set(lab.companions(ds, spec))
    with pytest.raises(DynstatError, match="Y002"):
        lab.run_metric(ds, {"layer": 2})


@pytest.mark.parametrize("of", ["n_generated", "text", "token_id", "quality"])
def test_run_mean_takes_measurements_over_tokens_only(ds, of):
    with pytest.raises(DynstatError, match="Y003"):
        lab.run_metric(ds, {"metric": "run_mean@1", "of": of})


@pytest.mark.parametrize(("of", "depth"), [("step_length", 1), ("turning_angle", 2), ("entropy", 0)])
def test_run_mean_leaves_out_what_is_made_from_the_first_token(ds, of, depth):
    got = lab.run_metric(ds, {"metric": "run_mean@1", "of": of, "phase": "all", "layer": 1})
    keep = [t for t in range(depth + 1, LENGTH[1]) if t != 9]
    assert got.values[0, 1, 0] == pytest.approx(ds[of].values[0, 1, 0, keep, 1].mean())


def test_states_refuse_a_last_pair_that_is_not_there(ds):
    thresholds = Thresholds.fixed(1.0, 0.5, 0.5)
    with pytest.raises(DynstatError, match="S404") as e:
        lab.states(ds.isel(layer=[0, 1, 2, 4]), thresholds)
    assert e.value.where == "m0"
    kept = lab.states(ds.isel(layer=[2, 3, 4]), thresholds)
    np.testing.assert_array_equal(kept.values, lab.states(ds, thresholds).values[..., 2:])


def test_what_was_computed_is_a_valid_variable_of_the_dataset(ds):
    poles = lab.kappa(ds)
    more = ds.assign(
        ct=lab.ct(ds).astype("float32"),
        ratio_norm=lab.run_metric(ds, "ratio_norm").astype("float32"),
        gd_ratio=lab.run_metric(ds, "gd_ratio").astype("float32"),
        kappa_sync=poles.kappa_sync.astype("float32"),
        regime=lab.regimes(ds),
        state=lab.states(ds, lab.learn_state_thresholds(ds)),
    )
    assert (more.state == -1).any()
    assert verify(more) == []
    degrees = lab.ct(ds, curvature="deg").attrs
    assert degrees["units"] == "degree" and degrees["valid_max"] > 360


def test_collapse_thresholds_are_quantiles_over_the_last_layers(ds):
    pool = [
        float(ds.entropy.values[m, p, s, t, last(m)]) / np.log(V)
        for m, p, s in each()
        for t in range(N_PROMPT[p], LENGTH[p])
        if t != 9
    ]
    assert lab.learn_collapse_thresholds(ds) == pytest.approx(np.quantile(pool, [0.10, 0.25]))


def test_companions_carry_units(ds):
    got = lab.companions(ds, {"metric": "ratio_norm@1", "curvature": "deg", "tokens": 4})
    assert got["mean"].attrs["units"] == "degree" and got["gini"].attrs["units"] == "1"
    assert json.loads(got.attrs["options"])["tokens"] == 4
