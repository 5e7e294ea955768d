"""Reading finished runs: what samples share is read once, and nothing else changes."""

import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from dynstat.extraction.models.capture import blocks_of, body_of, states  # noqa: E402
from dynstat.extraction.runs.cache import SHARED_TOLERANCE, Caching, caching, relative_difference  # noqa: E402
from dynstat.extraction.runs.reading import Runs, read_runs  # noqa: E402

# Tiny forms by config: every way in which positions, windows and memories come in.
FORMS = {
    "gpt2": dict(n_embd=32, n_layer=3, n_head=4, n_positions=64),
    "opt": dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, ffn_dim=64,
                max_position_embeddings=64, word_embed_proj_dim=16),
    "llama": dict(intermediate_size=64),
    "mistral": dict(intermediate_size=64, head_dim=8, sliding_window=4),
    "gemma2": dict(intermediate_size=64, head_dim=8, sliding_window=4),
    "bloom": dict(hidden_size=32, n_layer=3, n_head=4),
    "mixtral": dict(intermediate_size=64, num_local_experts=4),
    "lfm2": dict(intermediate_size=64, layer_types=["conv", "full_attention", "conv"]),
    "mamba": dict(hidden_size=32, num_hidden_layers=3, state_size=4),
    "openai-gpt": dict(n_embd=32, n_layer=3, n_head=4, n_positions=64),
}  # fmt: skip
SHARED = {"gpt2", "opt", "llama", "mistral", "gemma2", "bloom", "mixtral", "lfm2"}
_DECODER = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)


def tiny(form: str, **more):
    """Build a random model with norms that do something, as `Loaded` shows it to reading and writing."""
    from types import SimpleNamespace

    kind = FORMS[form] if "intermediate_size" not in FORMS[form] else _DECODER | FORMS[form]
    config = transformers.AutoConfig.for_model(
        form, vocab_size=97, pad_token_id=None, bos_token_id=0, eos_token_id=0, **kind | more
    )
    torch.manual_seed(0)
    lm = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    lm.eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in lm.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        else:
            # A state space at that size grows to millions, where rounding is all that is left to see.
            parameter.mul_(2.0 if form == "mamba" else 5.0)
    blocks = blocks_of(lm)
    encoder = SimpleNamespace(valid=tuple(range(97)), end_of_text=0)
    return SimpleNamespace(id=form, lm=lm, body=body_of(lm, blocks), blocks=blocks, encoder=encoder,
                           device=lm.device)  # fmt: skip


def rows(prompts: int, samples: int, n_prompt: int, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(97, (prompts * samples, n_prompt + steps), generator=generator)
    ids[:, :n_prompt] = ids[::samples, :n_prompt].repeat_interleave(samples, 0)
    return ids


def all_states(runs: Runs) -> torch.Tensor:
    return torch.stack([runs.layer(i) for i in range(runs.layers)])


@pytest.mark.parametrize("form", FORMS)
def test_shared_prompts_give_the_states_of_whole_rows(form):
    """Prompts longer and shorter than the sliding windows, one sample and several, one token and several."""
    model = tiny(form)
    assert caching(model).reading == ("shared" if form in SHARED else "whole")
    for prompts, samples, n_prompt, steps in ((2, 3, 11, 9), (3, 2, 3, 12), (1, 4, 1, 5), (2, 1, 6, 6)):
        ids = rows(prompts, samples, n_prompt, steps)
        runs = read_runs(model, ids, samples, n_prompt)
        common = n_prompt - 1 if form in SHARED and samples > 1 else 0
        assert runs.common == common and runs.samples == samples
        assert runs.shared.shape[1:3] == (prompts, common)
        assert runs.own.shape[1:3] == (prompts * samples, n_prompt + steps - common)
        assert runs.lengths.tolist() == [n_prompt + steps] * len(ids)
        truth = states(model.body, model.blocks, ids)
        assert all_states(runs).shape == truth.shape
        assert relative_difference(all_states(runs), truth) < 5e-6
        # Each row alone.
        for i in (0, len(ids) - 1):
            alone = states(model.body, model.blocks, ids[i : i + 1])
            assert relative_difference(all_states(runs)[:, i : i + 1], alone) < 5e-6


def test_a_cache_that_is_expanded_wrongly_is_found(monkeypatch):
    import dynstat.extraction.runs.cache as c

    def wrong(cache, n, times):
        cache.reorder_cache(torch.arange(n).repeat(times))
        return cache

    monkeypatch.setattr(c, "expand", wrong)
    found = caching(tiny("llama"))
    assert found == Caching("past_key_values", "rows", "whole", found.difference)
    assert found.difference < 1e-5


@pytest.mark.parametrize("fault", ["positions", "raises"])
def test_a_cache_that_is_wrong_is_not_used(fault, monkeypatch):
    import dynstat.extraction.runs.cache as c

    true = c.advance

    def broken(module, ids, name, cache=None, **inputs):
        if cache is not None:
            if fault == "raises":
                raise IndexError("no such layer")
            inputs["position_ids"] = torch.arange(ids.shape[1])[None]
        return true(module, ids, name, cache, **inputs)

    monkeypatch.setattr(c, "advance", broken)
    assert caching(tiny("llama")) == Caching("past_key_values", "uncached", "whole")


def test_what_a_model_can_do_is_found_once_and_does_not_depend_on_what_was_read(monkeypatch):
    import dynstat.extraction.runs.cache as c

    fresh, used = tiny("gpt2"), tiny("gpt2")
    read_runs(used, rows(2, 1, 4, 3), 1, 4)
    assert caching(used) == caching(fresh)
    monkeypatch.setattr(c, "_probe", lambda _: pytest.fail("asked again"))
    assert caching(used).reading == "shared"


def test_what_a_model_can_do_is_asked_anew_where_it_computes_otherwise(monkeypatch):
    """Rounding differs by threads and kind of attention, and may lie on the other side of a tolerance."""
    import dynstat.extraction.runs.cache as c

    asked = []
    monkeypatch.setattr(c, "_probe", lambda _: asked.append(1) or Caching("", "uncached", "whole"))
    model, threads = tiny("llama"), torch.get_num_threads()
    try:
        for n in (1, 2, 1):
            torch.set_num_threads(n)
            caching(model)
        assert len(asked) == 2
        model.lm.set_attn_implementation({"sdpa": "eager"}.get(model.lm.config._attn_implementation, "sdpa"))
        caching(model)
        assert len(asked) == 3
    finally:
        torch.set_num_threads(threads)


def test_rotations_that_grow_with_the_text_are_read_whole():
    grows = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = tiny("llama", max_position_embeddings=8, rope_parameters=grows)
    assert caching(model).reading == "whole"


@pytest.mark.parametrize("form", sorted(SHARED))
def test_states_of_a_prefix_do_not_depend_on_later_tokens(form):
    model, ids = tiny(form), rows(2, 3, 6, 6)
    other = ids.clone()
    other[:, 9:] = (other[:, 9:] + 31) % 97
    a, b = (all_states(read_runs(model, i, 3, 6)) for i in (ids, other))
    assert relative_difference(a[:, :, :9], b[:, :, :9]) < 5e-6
    assert relative_difference(a[:, :, 9:], b[:, :, 9:]) > 1e-2


@pytest.mark.parametrize("form", FORMS)
def test_padded_rows_have_the_states_of_single_ones(form):
    model, lengths = tiny(form), [3, 9, 6, 9]
    ids = rows(4, 1, 9, 0)
    for i, n in enumerate(lengths):
        ids[i, n:] = ids[i, n - 1]
    runs = read_runs(model, ids, 1, 0, torch.tensor(lengths), padded=True)
    assert runs.common == 0 and runs.lengths.tolist() == lengths
    for i, n in enumerate(lengths):
        alone = states(model.body, model.blocks, ids[i : i + 1, :n])
        assert relative_difference(all_states(runs)[:, i : i + 1, :n], alone) < 5e-6


def test_tolerance_is_that_of_rounding():
    assert SHARED_TOLERANCE <= 1e-5
    one = torch.ones(2, 3, 4)
    assert relative_difference(one, one) == 0
    assert relative_difference(one * 1.01, one) == pytest.approx(0.01, rel=1e-4)
    assert not relative_difference(one * float("nan"), one) <= 1
