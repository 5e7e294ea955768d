"""Read-outs beside the plain lens: temperatures against a naive solver, and what each must leave alone."""

import copy
import dataclasses
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from scipy.optimize import brentq  # noqa: E402
from scipy.special import log_softmax  # noqa: E402

from dynstat import DynstatError, data_path  # noqa: E402
from dynstat.extraction.lens import calibrate  # noqa: E402
from dynstat.extraction.lens.calibrate import Final, final_states, matched_temperature  # noqa: E402
from dynstat.extraction.lens.variants import Variant, variants_of  # noqa: E402
from dynstat.extraction.models.encoding import encoder  # noqa: E402
from dynstat.extraction.models.loading import load  # noqa: E402
from dynstat.extraction.models.readout import SlowReadOut  # noqa: E402
from dynstat.extraction.models.sources import locate  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.files import sha256_file  # noqa: E402

WORDS = "Once upon a time there was a king, and the king had 12 ships.\n" * 40


@pytest.fixture(scope="module")
def embedded():
    panel = load_panel(data_path("panels/pilot.yaml"))
    source = locate(panel.models[0])
    return load(source, encoder(source, panel))


@pytest.fixture(scope="module")
def read(embedded):
    return final_states(embedded, WORDS)


def naive_logits(model, text=WORDS):
    """Every window through the whole model, as transformers runs it; one array, tokens by vocabulary."""
    ids = model.encoder.tokenizer.encode(text, add_special_tokens=False)
    start = list(model.encoder.start)
    n = 128 - len(start)
    out = []
    for at in range(0, len(ids) - n + 1, n):
        row = torch.tensor([start + ids[at : at + n]])
        with torch.inference_mode():
            logits = model.lm(input_ids=row).logits[0, 1:, list(model.encoder.valid)]
        out.append(logits.double().numpy())
    return np.concatenate(out)


def naive_entropy(logits, temperature):
    log_p = log_softmax(logits / temperature, axis=-1)
    return float(-(np.exp(log_p) * log_p).sum(-1).mean())


@pytest.mark.parametrize("entropy", [0.05, 2.0, 3.7, 6.9])
def test_the_temperature_gives_the_wanted_entropy_and_is_the_one_that_brentq_finds(embedded, read, entropy):
    logits = naive_logits(embedded)
    found = matched_temperature(read, entropy)
    assert abs(naive_entropy(logits, found) - entropy) <= 1e-6
    truth = math.exp(brentq(lambda x: naive_entropy(logits, math.exp(x)) - entropy, -6, 8, xtol=1e-13))
    assert found == pytest.approx(truth, rel=1e-6)


def test_entropy_and_slope_equal_their_definitions(read):
    for t in (0.3, 1.0, 4.0):
        entropy, slope = read.entropy(t)
        higher, lower = read.entropy(t * math.exp(1e-5))[0], read.entropy(t * math.exp(-1e-5))[0]
        assert slope == pytest.approx((higher - lower) / 2e-5, rel=1e-6)
        assert 0 < entropy < math.log(1024)


def test_blocks_change_nothing(read, monkeypatch):
    whole, found = read.entropy(0.8), matched_temperature(read, 3.3)
    monkeypatch.setattr(calibrate, "_BLOCK_BYTES", 1)
    assert read.entropy(0.8) == pytest.approx(whole, rel=1e-9)
    # In eight digits, so that machines agree whose sums round differently.
    assert matched_temperature(read, 3.3) == found == float(f"{found:.8g}")


def test_first_and_special_tokens_and_a_broken_window_are_left_out(embedded):
    ids = calibrate.windows(embedded, WORDS)
    assert ids.shape[1] == 128 and (ids[:, 0] == embedded.encoder.start[0]).all()
    given = embedded.encoder.tokenizer.encode(WORDS, add_special_tokens=False)
    assert ids[:, 1:].flatten().tolist() == given[: len(given) // 127 * 127]
    end = embedded.encoder.tokenizer.decode(list(embedded.encoder.special)[:1])
    ids = calibrate.windows(embedded, WORDS + end + WORDS)
    assert (~calibrate.counted(embedded, ids)).sum() == len(ids) + 1


def with_head(model, factor):
    """The same model with the weights of its head multiplied."""
    *chain, head = model.readout.chain
    scaled = copy.deepcopy(head)
    with torch.no_grad():
        for parameter in scaled.parameters():
            parameter.mul_(factor)
    readout = dataclasses.replace(model.readout, chain=(*chain, scaled))
    return dataclasses.replace(model, readout=readout)


@pytest.mark.parametrize("architecture", ["neox", "phi"])
def test_scaling_the_head_scales_the_temperature_and_changes_nothing_else(load_tiny, architecture):
    """A cluster of models that differ by the scale of their logits alone must vanish."""
    model = load_tiny(architecture)
    one, other = (final_states(m, WORDS) for m in (model, with_head(model, 7.25)))
    assert other.entropy()[0] < one.entropy()[0] - 0.1, "plain, the two differ"
    before, after = matched_temperature(one, 3.0), matched_temperature(other, 3.0)
    assert after == pytest.approx(7.25 * before, rel=1e-6)
    a, b = (next(iter(f.logits())) / t for f, t in ((one, before), (other, after)))
    torch.testing.assert_close(a.softmax(-1), b.softmax(-1), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("entropy", [0.0, -1.0, math.log(1024), 9.0, math.nan])
def test_an_entropy_that_no_temperature_gives_is_refused(read, entropy):
    with pytest.raises(DynstatError) as e:
        matched_temperature(read, entropy)
    assert e.value.code == "X224"


def test_logits_that_are_all_equal_have_no_temperature(embedded, read):
    flat = dataclasses.replace(embedded, readout=lambda s: torch.zeros(*s.shape[:-1], 1024))
    with pytest.raises(DynstatError) as e:
        matched_temperature(Final(flat, read.states), 3.0)
    assert e.value.code == "X224"
    nan = dataclasses.replace(embedded, readout=lambda s: torch.full((*s.shape[:-1], 1024), math.nan))
    with pytest.raises(DynstatError) as e:
        matched_temperature(Final(nan, read.states), 3.0)
    assert e.value.code == "X224"


def test_a_text_shorter_than_a_window_is_refused(embedded):
    with pytest.raises(DynstatError) as e:
        final_states(embedded, "Too short.")
    assert e.value.code == "S404"
    with pytest.raises(DynstatError) as e:
        final_states(embedded, embedded.encoder.decode([embedded.encoder.end_of_text]) * 400)
    assert e.value.code == "S404" and "special" in e.value.found


def panel_with(**options):
    panel = load_panel(data_path("panels/pilot.yaml"))
    return dataclasses.replace(panel, readouts=("logit_lens", *options), readout_options=options)


def test_variants_of_a_panel(embedded, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(WORDS, encoding="utf-8")
    panel = panel_with(no_norm={}, t_matched={"entropy": 3.0, "text": text}, top_k={})
    plain, no_norm, matched, top = variants_of(panel, embedded)
    assert plain == Variant() and no_norm == Variant("no_norm", skip_norm=True)
    assert top == Variant("top_k", top_k=50, attrs={"readout_k": 50})
    assert matched.temperature == matched_temperature(final_states(embedded, WORDS), 3.0)
    assert matched.facts == {"t_matched_temperature": matched.temperature}
    assert matched.attrs["readout_entropy"] == 3.0
    assert matched.attrs["readout_text_sha256"] == sha256_file(text)


def test_a_temperature_is_found_alike_twice(embedded):
    panel = panel_with(t_matched={"entropy": 3.1})
    one, two = (variants_of(panel, embedded)[1].temperature for _ in range(2))
    assert one == two


def test_the_command_names_entropies_and_their_mean(write_panel, capsys, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(WORDS, encoding="utf-8")
    path = write_panel(("gpt2", "llama"))
    assert calibrate.main([str(path), "--text", str(text)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    values = [float(words[-2]) for words in lines]
    assert [words[0] for words in lines[:2]] == ["gpt2", "llama"]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2, abs=1e-4)
    assert calibrate.main([str(tmp_path / "none.yaml")]) == 5
    assert "F001" in capsys.readouterr().err


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.floats(-2, 4), st.sampled_from([1, 2, 30]), st.floats(0.02, 0.98))
def test_any_entropy_of_any_logits_is_met(embedded, seed, log_scale, kinds, share):
    """Smooth logits, and logits of few values, whose entropy climbs in steps; read by the identity."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((9, 1024)) * 10**log_scale
    if kinds > 1:
        logits = np.round(logits * kinds / 10**log_scale) * 10**log_scale
        # One largest, so that the entropy comes down to 0.
        logits[np.arange(9), rng.integers(0, 1024, 9)] = logits.max() + 10**log_scale
    identity = dataclasses.replace(embedded, readout=lambda s: s)
    entropy = share * math.log(1024)
    found = matched_temperature(Final(identity, torch.from_numpy(logits)), entropy)
    assert abs(naive_entropy(logits, found) - entropy) <= 1e-6


def test_an_entropy_below_that_of_ties_is_refused(embedded):
    logits = torch.zeros(4, 1024, dtype=torch.float64)
    logits[:, :8] = 5.0  # eight are largest: never less than ln 8
    final = Final(dataclasses.replace(embedded, readout=lambda s: s), logits)
    assert matched_temperature(final, math.log(8) + 0.1) > 0
    with pytest.raises(DynstatError) as e:
        matched_temperature(final, math.log(8) - 0.1)
    assert e.value.code == "X224"


def test_the_slow_read_out_has_a_temperature_and_no_variant_without_norm(load_tiny):
    model = load_tiny("gpt2")
    slow = dataclasses.replace(model, readout=SlowReadOut(model.lm, model.blocks))
    text = WORDS[:900]
    one, two = (matched_temperature(final_states(m, text), 3.0) for m in (model, slow))
    assert two == pytest.approx(one, rel=1e-5)
    with pytest.raises(DynstatError) as e:
        variants_of(panel_with(no_norm={}), slow)
    assert e.value.code == "X207"


def test_the_number_format_of_the_model_hardly_changes_its_temperature():
    panel = load_panel(data_path("panels/pilot.yaml"))
    found = []
    for dtype in ("float32", "bfloat16"):
        source = locate(panel.models[0], dtype)
        found.append(matched_temperature(final_states(load(source, encoder(source, panel)), WORDS), 3.0))
    assert found[0] != found[1] and found[1] == pytest.approx(found[0], rel=5e-3)
