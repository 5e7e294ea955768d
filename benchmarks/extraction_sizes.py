"""Models that the extraction benchmark reads: sizes of the field with random weights, and SmolLM2."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

SEED = 20261120
SMOLLM2 = "DYNSTAT_SMOLLM2"


@dataclass(frozen=True)
class Size:
    """A model and how many tokens it reads.

    Attributes
    ----------
    name : str
        In tables.
    kind : {"gpt2", "pythia", "qwen2", "gguf"}
        Architecture, or a file.
    layers, width, heads, vocabulary : int
        Of the model; 0 where the file says.
    tokens : int
        Length of the one text.
    """

    name: str
    kind: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    tokens: int


FULL = (
    Size("GPT-2-small", "gpt2", 12, 768, 12, 50257, 512),
    Size("GPT-2-small, short", "gpt2", 12, 768, 12, 50257, 64),
    Size("Pythia-70M", "pythia", 6, 512, 8, 50304, 512),
    Size("SmolLM2-135M", "gguf", 0, 0, 0, 0, 64),
    Size("Qwen2.5-0.5B", "qwen2", 24, 896, 14, 151936, 48),
)
QUICK = (
    Size("GPT-2-small, short", "gpt2", 12, 768, 12, 50257, 64),
    Size("SmolLM2-135M", "gguf", 0, 0, 0, 0, 32),
)


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a model by the names its architecture gives them: found without dynstat.

    Attributes
    ----------
    lm, body : Module
        The causal model, and the part of it without the head.
    blocks : list of Module
        Its layers.
    norm, head : Module
        What stands between the last block and the logits.
    ids : Tensor of int64, shape (1, token)
        The text.
    """

    lm: Any
    body: Any
    blocks: list[Any]
    norm: Any
    head: Any
    ids: Any


def smollm2(given: str | None) -> Path | None:
    """Return SmolLM2's GGUF file, where it is at hand."""
    text = given or os.environ.get(SMOLLM2)
    if not text or not Path(text).is_file():
        return None
    return Path(text)


def build(size: Size, file: Path | None = None, tokens: int | None = None) -> Parts:
    """Make a model and its text, the same at every call.

    Parameters
    ----------
    size : Size
        What to make.
    file : Path, optional
        GGUF file, for kind "gguf".
    tokens : int, optional
        Length of the text, that of `size` otherwise.
    """
    import torch

    torch.manual_seed(SEED)
    lm = _from_file(file) if size.kind == "gguf" else _random(size)
    lm = lm.eval().requires_grad_(False)
    rows = lm.get_output_embeddings().weight.shape[0]
    ids = torch.randint(0, rows, (1, tokens or size.tokens), generator=torch.Generator().manual_seed(SEED))
    if size.kind == "gguf":
        ids = _text(file, ids.shape[1])
    body = lm.base_model
    blocks, norm = {
        "gpt2": lambda: (body.h, body.ln_f),
        "pythia": lambda: (body.layers, body.final_layer_norm),
        "qwen2": lambda: (body.layers, body.norm),
        "gguf": lambda: (body.layers, body.norm),
    }[size.kind]()
    return Parts(lm, body, list(blocks), norm, lm.get_output_embeddings(), ids)


def _random(size: Size) -> Any:
    import transformers as t

    # Their defaults lie beyond a small vocabulary.
    special: Any = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    if size.kind == "gpt2":
        config: Any = t.GPT2Config(
            n_layer=size.layers,
            n_embd=size.width,
            n_head=size.heads,
            vocab_size=size.vocabulary,
            n_positions=max(1024, size.tokens),
            **special,
        )
    elif size.kind == "pythia":
        config = t.GPTNeoXConfig(
            num_hidden_layers=size.layers,
            hidden_size=size.width,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.width,
            vocab_size=size.vocabulary,
            **special,
        )
    else:
        config = t.Qwen2Config(
            num_hidden_layers=size.layers,
            hidden_size=size.width,
            num_attention_heads=size.heads,
            num_key_value_heads=2 if size.heads % 2 == 0 else 1,
            intermediate_size=round(size.width * 38 / 7),
            vocab_size=size.vocabulary,
            tie_word_embeddings=True,
            **special,
        )
    return t.AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def _from_file(file: Path | None) -> Any:
    import torch
    import transformers as t

    assert file is not None
    return t.AutoModelForCausalLM.from_pretrained(
        str(file.parent),
        gguf_file=file.name,
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
    )


def _text(file: Path | None, tokens: int) -> Any:
    import torch
    import transformers as t

    assert file is not None
    tokenizer = t.AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert len(ids) >= tokens, "the text is too short"
    return torch.tensor(ids[:tokens])[None]


# Written for this benchmark.
TEXT = (
    "The lighthouse keeper climbed the stairs every evening at the same hour, carrying a lamp, a book and a "
    "small loaf of bread. From the top she could see the whole bay: fishing boats coming home, the mill on "
    "the far shore, and on clear days the mountains behind it. When the fog came in, she rang the bell four "
    "times an hour until morning, and counted the answers of the ships that passed in the dark. Nobody had "
    "ever asked her to write them down, but she kept a list, because a number that nobody writes down is "
    "soon forgotten."
)


@lru_cache(maxsize=1)
def loaded(parts: Parts) -> Any:
    """Give the model to dynstat, as one that is already in memory; every row of its head is a token."""
    from dynstat.extraction.models.encoding import Encoder
    from dynstat.extraction.models.loading import wrap

    valid = tuple(range(parts.head.weight.shape[0]))
    return wrap(parts.lm, Encoder(None, (), -1, frozenset(), valid), "benchmark")
