"""Every causal architecture of transformers, in tiny form, against the model itself.

A dozen run always, all of them with ``pytest -m architectures``.
"""

import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from pathlib import Path  # noqa: E402

from huggingface_hub.errors import StrictDataclassError  # noqa: E402

from dynstat import DynstatError  # noqa: E402
from dynstat.extraction.lens.measuring import measure  # noqa: E402
from dynstat.extraction.models.admission import check_causal, check_class, check_kind  # noqa: E402
from dynstat.extraction.models.capture import blocks_of, body_of, states  # noqa: E402
from dynstat.extraction.models.discovery import trace  # noqa: E402
from dynstat.extraction.models.encoding import Encoder  # noqa: E402
from dynstat.extraction.models.loading import Loaded  # noqa: E402
from dynstat.extraction.models.readout import ReadOut, is_norm, oracle, relative_error  # noqa: E402
from dynstat.extraction.runs.reading import read_runs  # noqa: E402

from .architectures import NOT_READ, build, causal, config, not_read, readable, row  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
IDS = torch.tensor([[6, 8, 80, 63, 7, 7, 12, 14], [6, 12, 12, 14, 26, 47, 11, 5]])  # none is padding

# Across families: bare norm and head, bias, caps and scalars, projections, mixtures, no attention.
DOZEN = [
    "gemma2", "cohere", "granite", "falcon_h1", "minicpm3", "opt (350M type)", "gptj", "modernbert-decoder",
    "mixtral", "deepseek_v4", "lfm2", "mpt", "jamba", "mamba", "rwkv",
]  # fmt: skip


def names(wanted):
    return [n for n in wanted if n in readable()]


def check(name):
    lm = build(name)
    blocks = blocks_of(lm)
    body = body_of(lm, blocks)
    check_kind(lm.config, name)
    check_causal(lm, blocks, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the slow read-out would warn
        readout = trace(lm, blocks, name)
    assert isinstance(readout, ReadOut) and 0 <= readout.error <= 1e-5
    called, given, put_out = [], [], []
    handles = [
        lm.register_forward_hook(lambda *_: called.append("lm")),
        readout.chain[-1].register_forward_hook(lambda *_: called.append("head")),
        readout.chain[0].register_forward_pre_hook(lambda _, args: given.append(args[0])),
        blocks[-1].register_forward_hook(lambda _, __, output: put_out.append(output)),
    ]
    got = states(body, blocks, IDS)
    assert not called, "only the body may be called"
    for handle in handles:
        handle.remove()
    # The last state is what the last block puts out, which the first module after it takes.
    last = put_out[0] if isinstance(put_out[0], torch.Tensor) else put_out[0][0]
    torch.testing.assert_close(got[-1], last.flatten(2), rtol=0, atol=0)
    if given:
        torch.testing.assert_close(got[-1].reshape(-1), given[-1].reshape(-1), rtol=0, atol=0)
    with torch.inference_mode():
        own = lm(input_ids=IDS, use_cache=False).logits
        assert own.std() > 1e-3 and got.isfinite().all()
        assert relative_error(readout(got[-1]), own) <= 1e-5
        for state in got:
            truth = oracle(lm, blocks, IDS, state)
            assert relative_error(readout(state), truth) <= 1e-5
            assert relative_error(readout(state.flatten(0, 1)), truth.flatten(0, 1)) <= 1e-5
        if any(is_norm(m) for m in readout.chain):
            assert relative_error(readout.without_norm()(got[-1]), own) > 1e-2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.modules())
    return lm, blocks, body, readout, got


def check_mask(lm, blocks, body, readout):
    """Rows of the head without an entry in the tokenizer, at the end and within, are no tokens."""
    valid = [i for i in range(88) if i not in (40, 41)]
    encoder = Encoder(None, (), -1, frozenset(), tuple(valid))
    model = Loaded(None, encoder, lm, body, blocks, readout)
    found = measure(model, read_runs(model, IDS, 1), [{"metric": "entropy@1"}])
    with torch.inference_mode():
        logits = lm(input_ids=IDS, use_cache=False).logits[..., valid].double()
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    last = torch.from_numpy(found.values["entropy"][..., -1]).double()
    torch.testing.assert_close(last, entropy, rtol=1e-4, atol=1e-4)
    assert set(found.top1_id.ravel().tolist()) <= set(valid)


def check_batches(lm, blocks, body, got):
    """One by one, padded on the right, or together: the same states, and no token sees a later one."""
    scale = got.abs().amax((1, 2, 3), keepdim=True)

    def close(found, truth):
        return float(((found - truth).abs() / scale).max()) <= 5e-6

    assert close(torch.cat([states(body, blocks, row[None]) for row in IDS], 1), got)
    padded = torch.cat([IDS, torch.zeros_like(IDS[:, :3])], 1)
    mask = (torch.arange(11) < 8).long().expand(2, 11)
    assert close(states(body, blocks, padded, mask)[:, :, :8], got)
    uneven = IDS.clone()
    uneven[1, 5:] = 0
    mask = (torch.arange(8)[None] < torch.tensor([[8], [5]])).long()
    found = states(body, blocks, uneven, mask)
    assert close(found[:, :1], got[:, :1]) and close(found[:, 1:, :5], got[:, 1:, :5])


@pytest.mark.parametrize("name", names(DOZEN))
def test_a_dozen_architectures(name):
    lm, blocks, body, readout, got = check(name)
    check_batches(lm, blocks, body, got)
    check_mask(lm, blocks, body, readout)
    assert row(name, lm, readout) in PAGE.read_text("utf-8").splitlines()


@pytest.mark.architectures
@pytest.mark.parametrize("name", readable())
def test_every_architecture(name):
    lm, blocks, body, readout, got = check(name)
    check_batches(lm, blocks, body, got)
    check_mask(lm, blocks, body, readout)
    assert row(name, lm, readout) in PAGE.read_text("utf-8").splitlines()


@pytest.mark.architectures
@pytest.mark.parametrize("name", [n for n in NOT_READ if n in causal()])
def test_what_is_not_read_says_so(name):
    try:
        check_class(config(name), name)
        lm = build(name)
    except DynstatError as e:
        assert e.code == "X225"  # multimodal, or an encoder with a decoder
        if "encoder" in e.found:
            return
        assert "multimodal" in e.found
        return
    except (ValueError, ImportError, StrictDataclassError):
        pytest.skip("transformers does not build it alone")
    with pytest.raises(DynstatError) as e:
        trace(lm, blocks_of(lm), name)
    assert e.value.code in ("X207", "X225") and "docs/architectures.md" in e.value.mend


def test_the_page_names_every_architecture():
    text = PAGE.read_text("utf-8")
    if f"transformers {transformers.__version__}" not in text:
        pytest.skip("the page speaks of another version of transformers")
    assert set(not_read()) <= set(text.splitlines())
    assert f"{len(readable())} forms" in text and f"{len(causal())} that transformers" in text
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted([*readable(), *NOT_READ])
