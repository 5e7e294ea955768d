"""A small panel that obeys the schema, made without any model."""

import json

import numpy as np
import pytest

from dynstat.dataset.build import build
from dynstat.dataset.schema import NO_SUCH_LAYER, NOT_EXTRACTED, OK, PADDING

VOCABULARY = 50


def model(i, n_layers, **more):
    return {
        "id": f"model-{i}",
        "revision": "main",
        "family": "toy",
        "architecture": f"arch{i}",
        "parameters": 1000 + i,
        "vocabulary": VOCABULARY,
        "n_layers": n_layers,
        "weights_sha256": f"{i:064x}",
        "tokenizer_sha256": "b" * 64,
        "dtype": "float32",
        "attn_implementation": "eager",
        "source": "somewhere",
        "factors": {"norm": "layer" if i % 2 else "rms", "tied": bool(i % 2), "corpus_seed": i},
        **more,
    }


def prompt(i):
    return {
        "id": f"p{i:02}",
        "text": f'Line one of {i}\n\tline two é 漢字 "quoted" a | b',
        "category": "abc"[i % 3],
        "template": f"t{i % 2}",
        "split": "panel",
        "answers": ["Paris", "the city of light"],
        "distractors": [],
    }


def sample(i):
    return {"id": f"s{i}", "seed": i - 1, "temperature": 0.7 * bool(i), "budget": 8, "mode": "generated"}


def make_panel(
    *,
    models=(0, 1),
    prompts=(0, 1, 2),
    samples=(0, 1),
    layers=(4, 3),
    seed=0,
    n_tokens=7,
    order=None,
    gaps=True,
    metrics=("entropy", "step_length", "turning_angle", "synchronisation"),
):
    """Return a valid panel; every value is a function of its labels, so that shards agree with the whole."""
    layers = dict(zip(range(9), (*layers, 4, 3, 4, 3, 4, 3, 4), strict=False))
    top = max(layers[m] for m in models)
    shape = (len(models), len(prompts), len(samples), n_tokens, top)
    quality = np.full(shape, OK, np.int8)
    values = {n: np.zeros(shape, np.float32) for n in metrics}
    token_id = np.zeros(shape[:4], np.int32)
    top1 = np.zeros(shape, np.int32)
    logp = np.zeros(shape[:4], np.float32)
    n_prompt = np.zeros(shape[:3], np.int32)
    n_generated = np.zeros(shape[:3], np.int32)
    text = np.full(shape[:3], "", object)
    for i, m in enumerate(models):
        for j, p in enumerate(prompts):
            for k, s in enumerate(samples):
                rng = np.random.default_rng([seed, m, p, s])
                n_prompt[i, j, k] = 2 + p % 2
                length = int(rng.integers(5, n_tokens + 1)) if gaps else n_tokens
                n_generated[i, j, k] = length - n_prompt[i, j, k]
                quality[i, j, k, length:] = PADDING
                quality[i, j, k, :, layers[m] :] = NO_SUCH_LAYER
                text[i, j, k] = f"text of {m} {p} {s}\nΩ"
                full = (n_tokens, max(layers.values()))
                for name in metrics:
                    values[name][i, j, k] = rng.random(full, np.float32)[:, :top]
                top1[i, j, k] = rng.integers(0, VOCABULARY, full)[:, :top]
                token_id[i, j, k] = rng.integers(0, VOCABULARY, n_tokens)
                logp[i, j, k] = -rng.random(n_tokens)
        if "synchronisation" in metrics:
            values["synchronisation"][i, ..., layers[m] - 1] = np.nan
    for name, first in (("step_length", 1), ("turning_angle", 2)):
        if name in metrics:
            values[name][..., :first, :] = np.nan
    logp[..., 0] = np.nan
    position = np.broadcast_to(np.arange(n_tokens), shape[:4])
    attrs = {
        "date_created": "2026-01-01T00:00:00Z",
        "history": "made for a test",
        "inputs": json.dumps({"models": [{"id": f"model-{m}"} for m in (order or range(9))]}),
        "panel_sha256": "c" * 64,
        "provenance": json.dumps({"host": f"{models} {prompts}"}),
        "prompt_order": json.dumps([f"p{i:02}" for i in range(40)]),
        "sample_order": json.dumps([f"s{i}" for i in range(9)]),
    }
    return build(
        models=[model(m, layers[m]) for m in models],
        prompts=[prompt(p) for p in prompts],
        samples=[sample(s) for s in samples],
        n_tokens=n_tokens,
        n_layers=top,
        values=values
        | {
            "quality": quality,
            "token_id": token_id,
            "top1_id": top1,
            "log_probability": logp,
            "text": text,
            "phase": (position >= n_prompt[..., None]).astype(np.int8),
            "is_first": (position == 0).astype(np.int8),
            "is_special": (position == 0).astype(np.int8),
            "n_prompt": n_prompt,
            "n_generated": n_generated,
            "stop_reason": np.full(shape[:3], "budget", object),
            "first_end_of_text": np.full(shape[:3], -1),
        },
        attrs=attrs,
    )


@pytest.fixture(scope="session")
def make():
    return make_panel


@pytest.fixture
def panel():
    return make_panel()


@pytest.fixture(scope="session")
def codes():
    return {"OK": OK, "PADDING": PADDING, "NOT_EXTRACTED": NOT_EXTRACTED, "NO_SUCH_LAYER": NO_SUCH_LAYER}
