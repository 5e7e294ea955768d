"""The streaming lens against a naive one that holds everything, and against identities."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from dynstat.extraction.lens import sweep  # noqa: E402
from dynstat.extraction.lens.engine import Engine  # noqa: E402
from dynstat.extraction.lens.measuring import measure  # noqa: E402
from dynstat.extraction.lens.points import Points  # noqa: E402
from dynstat.extraction.lens.variants import Variant  # noqa: E402
from dynstat.extraction.runs.reading import Runs  # noqa: E402

from .lens_cases import GEOMETRY, LAYERS, LENS, WIDTH, V, head, model, naive, runs_of, same, whole  # noqa: E402


@pytest.mark.parametrize(
    "m",
    [
        model(head()),
        model(head(bias=True), scale=0.3),
        model(head(spread=9.0), soft_cap=20.0),
        model(head(), pre_head=3.0),
        model(head(v=320), valid=range(V)),
        model(head(v=320, bias=True), valid=sorted([*range(0, 320, 2), 301])),
        model(nn.Sequential(head())),
        model(nn.Sequential(head(v=320)), valid=range(V)),
    ],
    ids=["plain", "bias, scale", "soft cap", "pre-head", "padding rows", "holes", "no matrix", "neither"],
)
def test_lens_equals_the_naive_one(m):
    runs = runs_of(3, 1, 0, 13)
    if not isinstance(m.readout.chain[-1], nn.Linear) or len(m.encoder.valid) < V:
        runs.ids[:] = runs.ids // 2 * 2 % 300
    found = measure(m, runs, LENS, engine=Engine(block_bytes=1))
    true = naive(m, runs, LENS)
    assert set(found.values) == set(true)
    for name, value in true.items():
        same(found.values[name], value, name)
    with torch.inference_mode():
        logits = torch.stack([m.readout(runs.layer(i)) for i in range(LAYERS)], -2)
    valid = list(m.encoder.valid)
    np.testing.assert_array_equal(found.top1_id, np.array(valid)[logits[..., valid].argmax(-1).numpy()])
    last = true["next_token_log_probability"][..., -1]
    same(found.log_probability[:, 1:], last[:, :-1])
    assert np.isnan(found.log_probability[:, 0]).all() and found.finite.all()


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(0, 4), st.integers(1, 5), st.integers(0, 2**20),
    st.integers(0, 2**20),
)  # fmt: skip
def test_shared_tokens_are_read_once_and_give_what_unshared_ones_give(
    prompts, samples, common, more, size, seed
):
    runs = runs_of(prompts, samples, common, common + more, seed=seed)
    assert Points(runs).n == prompts * common + prompts * samples * more
    m = model(head())
    engine = Engine(block_bytes=size)
    a = measure(m, runs, LENS + GEOMETRY, engine=engine)
    b = measure(m, whole(runs), LENS + GEOMETRY)
    np.testing.assert_array_equal(a.finite, b.finite)
    same(a.log_probability, b.log_probability, "log_probability")
    for name, value in a.values.items():
        same(value, b.values[name], name)


@pytest.mark.parametrize("size", [1, 4 * V * 33, 1 << 30])
@pytest.mark.parametrize("piece", [1, 4 * V * 5, 1 << 30])
def test_size_of_blocks_and_pieces_changes_rounding_only(monkeypatch, size, piece):
    runs, m = runs_of(2, 3, 4, 17), model(head())
    true = naive(m, runs, LENS)
    monkeypatch.setattr(sweep, "PIECE_BYTES", piece)
    found = measure(m, runs, LENS, engine=Engine(block_bytes=size))
    for name, value in true.items():
        same(found.values[name], value, name)


def test_both_kernels_give_the_same():
    from dynstat.extraction.lens.matmul import usable

    if not usable("onednn"):
        pytest.skip("this build of torch has one kernel only")
    runs, m = runs_of(2, 1, 0, 40), model(head(bias=True))
    a, b = (measure(m, runs, LENS, engine=Engine(kernel)) for kernel in ("linear", "onednn"))
    for name, value in a.values.items():
        same(value, b.values[name], name)


def test_twice_the_same_bits():
    runs, m = runs_of(2, 3, 4, 17), model(head())
    a, b = (measure(m, runs, LENS) for _ in range(2))
    for name, value in a.values.items():
        np.testing.assert_array_equal(value, b.values[name])


def test_order_of_the_vocabulary_and_a_constant_change_nothing():
    runs, plain = runs_of(2, 1, 0, 20), head(bias=True)
    order = torch.randperm(V, generator=torch.Generator().manual_seed(5))
    moved = head(bias=True)
    moved.weight.copy_(plain.weight[order])
    moved.bias.copy_(plain.bias[order] + 500.0)
    metrics = [s for s in LENS if "next_token" not in s["metric"]]
    a, b = measure(model(plain), runs, metrics), measure(model(moved), runs, metrics)
    np.testing.assert_array_equal(a.top1_id, order.numpy()[b.top1_id])
    for name, value in a.values.items():
        # Logits near 500 have 3e-5 between them.
        same(value, b.values[name], name, 3e-3 if name == "effective_vocabulary" else 2e-4)


def test_order_of_rows_changes_nothing():
    runs, m = runs_of(5, 1, 0, 9), model(head())
    order = [3, 0, 4, 1, 2]
    moved = Runs(runs.ids[order], runs.lengths, 1, runs.shared[:, order], runs.own[:, order])
    a, b = measure(m, runs, LENS), measure(m, moved, LENS)
    for name, value in a.values.items():
        same(value[order], b.values[name], name)


def test_identities():
    runs, m = runs_of(3, 1, 0, 30), model(head(spread=2.0))
    v = measure(m, runs, [*LENS, {"metric": "concentration@1", "k": 1, "as": "concentration_1"}]).values
    slack = 1e-6
    h, p1 = v["entropy"].astype(np.float64), v["top1_probability"].astype(np.float64)
    assert (h >= 0).all() and (h <= np.log(V) + slack).all()
    assert (p1 >= np.exp(-h) - slack).all()
    # Fano: what is not on the leader has at most the entropy of V - 1 equal tokens.
    q = np.clip(1 - p1, 1e-300, 1)
    assert (h <= -p1 * np.log(p1) - q * np.log(q) + q * np.log(V - 1) + 1e-5).all()
    assert (v["margin"] <= p1 + slack).all() and (v["margin"] >= 0).all()
    np.testing.assert_allclose(v["margin"], p1 - v["top2_probability"], atol=slack)
    masses = [p1, v["concentration_1"], v["concentration_5"], v["concentration"]]
    assert all((a <= b + slack).all() for a, b in zip(masses, masses[1:], strict=False))
    assert (v["dispersion"] <= 99).all()
    for name in ("kl_to_final", "kl_from_final"):
        assert (v[name] >= 0).all() and (v[name][..., -1] == 0).all() and (v[name][..., 0] > 0.01).all()
    rank, spoken = v["next_token_rank"][:, :-1], v["next_token_log_probability"][:, :-1]
    assert (rank >= 1).all() and (rank <= V).all()
    assert (spoken[rank == 1] >= -h[:, :-1][rank == 1] - 1e-5).all()
    assert (spoken <= -np.log(rank) + 1e-5).all()
    np.testing.assert_array_equal(np.isnan(v["next_token_rank"]), np.isnan(v["next_token_log_probability"]))


def test_layers_that_agree_have_no_divergence():
    runs = runs_of(2, 1, 0, 20)
    runs.own[:] = runs.own[-1]
    v = measure(model(head()), runs, LENS).values
    for name in ("kl_to_final", "kl_from_final"):
        assert np.abs(v[name]).max() < 1e-6
    np.testing.assert_allclose(v["synchronisation"][..., :-1], 1.0, atol=2e-6)


def test_only_what_is_asked_is_computed(monkeypatch):
    from dynstat.extraction.lens import distributions

    def never(*_, **__):
        raise AssertionError("computed")

    for name in (
        "synchronisation",
        "divergence_to",
        "count_above",
        "rank",
        "leading_logits",
        "followed",
        "keep",
    ):
        monkeypatch.setattr(distributions.Reading, name, never)
    monkeypatch.setattr(distributions.Reading, "entropy", property(never))
    runs, m = runs_of(2, 1, 0, 10), model(head())
    assert set(measure(m, runs, [{"metric": "sum_squares@1"}]).values) == {"sum_squares"}
    assert measure(m, runs, []).values == {}


def test_points_that_are_not_finite_are_flagged_and_spread_to_what_needs_them():
    runs, m = runs_of(3, 1, 0, 12), model(head(), norm=nn.Identity())
    runs.own[1, 0, 4] = float("nan")
    runs.own[3, 1, 6, 0] = float("inf")
    plain = measure(m, runs, [s for s in LENS if "kl" not in s["metric"]])
    bad = np.zeros((3, 12, LAYERS), bool)
    bad[0, 4, 1] = bad[1, 6, 3] = True
    np.testing.assert_array_equal(plain.top1_id == -1, bad)
    np.testing.assert_array_equal(np.isnan(plain.values["entropy"]), bad)
    sync = np.isnan(plain.values["synchronisation"][..., :-1])
    np.testing.assert_array_equal(sync, bad[..., :-1] | bad[..., 1:])
    assert np.isnan(plain.log_probability[1, 7]) and not plain.finite[1, 7, 3]
    assert not plain.finite[0, 4:7, 1].any() and not plain.finite[0, 4, 0] and plain.finite[2].all()
    compared = measure(m, runs, LENS)
    np.testing.assert_array_equal(np.isnan(compared.values["kl_to_final"]), bad | bad[..., -1:])
    assert not compared.finite[1, 6].any() and compared.finite[2].all()
    # Whatever is said to be fine has its values.
    for name, value in compared.values.items():
        defined = np.ones(value.shape, bool)
        if name == "synchronisation":
            defined[..., -1] = False
        if name.startswith("next_token"):
            defined[:, -1] = False
        assert np.isfinite(value[compared.finite & defined]).all(), name


class Forbids(nn.Module):
    """A head that rules a token out where a state says so: only that logit is not finite."""

    def __init__(self):
        super().__init__()
        self.linear = head()

    def forward(self, x):
        logits = self.linear(x.clamp(max=50.0))
        logits[..., 5] = torch.where(x[..., 0] > 99.0, -torch.inf, logits[..., 5])
        return logits


def test_a_logit_of_minus_infinity_is_not_finite_for_what_compares_with_it():
    runs, m = runs_of(1, 1, 0, 6), model(Forbids(), norm=nn.Identity())
    runs.own[2, 0, 1, 0] = runs.own[-1, 0, 4, 0] = 100.0
    v = measure(m, runs, LENS).values
    bad = np.zeros((1, 6, LAYERS), bool)
    bad[0, 1, 2] = bad[0, 4, -1] = True
    np.testing.assert_array_equal(np.isnan(v["entropy"]), bad)
    np.testing.assert_array_equal(np.isnan(v["synchronisation"][..., :-1]), bad[..., :-1] | bad[..., 1:])
    for name in ("kl_to_final", "kl_from_final"):
        np.testing.assert_array_equal(np.isnan(v[name]), bad | bad[..., -1:])


def test_padding_is_not_read():
    lengths = [7, 3, 10]
    runs, m = runs_of(3, 1, 0, 10, lengths=lengths), model(head())
    inside = np.arange(10) < np.array(lengths)[:, None]
    assert Points(runs).n == 20
    runs.own[:, ~torch.from_numpy(inside)] = float("nan")
    found = measure(m, runs, LENS + GEOMETRY)
    for i, n in enumerate(lengths):
        one = Runs(
            runs.ids[i : i + 1, :n],
            torch.tensor([n]),
            1,
            runs.shared[:, i : i + 1],
            runs.own[:, i : i + 1, :n],
        )
        alone = measure(m, one, LENS + GEOMETRY)
        for name, value in alone.values.items():
            same(found.values[name][i, :n], value[0], name)
            assert np.isnan(found.values[name][i, n:]).all()
        same(found.log_probability[i, :n], alone.log_probability[0])
    assert (
        found.finite.all()
        and (found.top1_id[~inside] == -1).all()
        and np.isnan(found.log_probability[~inside]).all()
    )


def test_variants_are_the_definitions_of_their_logits():
    runs, m = runs_of(2, 2, 3, 9), model(head(bias=True))
    shift = torch.randn(WIDTH, generator=torch.Generator().manual_seed(3))

    def translate(layer, states):
        return states + layer * shift

    variants = [
        Variant(),
        Variant("no_norm", skip_norm=True),
        Variant("warm", temperature=1.7),
        Variant("top_k", top_k=7),
        Variant("tuned", translate=translate),
    ]
    found = measure(m, runs, LENS, variants, Engine(block_bytes=1)).values
    true = {"": naive(m, runs, LENS), "no_norm": naive(m, runs, LENS, m.readout.without_norm())}
    true["warm"] = naive(m, runs, LENS, lambda x: m.readout(x) / 1.7)
    by_layer = [translate(i, runs.layer(i)) for i in range(LAYERS)]
    true["tuned"] = naive(m, runs, LENS, lambda _: m.readout(torch.stack(by_layer)))
    short = [
        "entropy", "top1_probability", "top2_probability", "margin", "concentration_5", "concentration",
        "sum_squares", "dispersion", "effective_vocabulary", "synchronisation",
    ]  # fmt: skip
    kept = [s for s in LENS if s.get("as", s["metric"][:-2]) in short]

    def cut(x):
        z = m.readout(x)
        return torch.where(z >= z.topk(7, -1).values[..., -1:], z, -1e4)

    true["top_k"] = naive(m, runs, kept, cut)
    names = {f"{n}__{v}" if v else n for v, part in true.items() for n in part}
    assert set(found) == names
    for v, part in true.items():
        for n, value in part.items():
            same(found[f"{n}__{v}" if v else n], value, n)


def test_readings_without_a_kernel_are_made_by_their_definitions():
    runs, m = runs_of(2, 1, 0, 40), model(head())
    kinds = [{"metric": "synchronisation@1", "kind": k, "as": k} for k in ("cosine", "top_k", "rbo", "jsd")]
    found = measure(m, runs, kinds, [Variant(), Variant("top_k", top_k=9)], Engine(block_bytes=1)).values
    assert set(found) == {"cosine", "top_k", "rbo", "jsd", "jsd__top_k"}
    for name, value in naive(m, runs, kinds).items():
        same(found[name], value, name)


def test_a_vocabulary_of_few_tokens():
    linear = head(v=2)
    runs = runs_of(1, 1, 0, 6)
    runs.ids[:] = runs.ids % 2
    m = model(linear)
    found = measure(m, runs, LENS, [Variant(), Variant("top_k", top_k=50)]).values
    for name, value in naive(m, runs, LENS).items():
        same(found[name], value, name)
    same(found["entropy__top_k"], found["entropy"])
