"""Write the pages that people read about the models, from the cards that programs read."""

from __future__ import annotations

from typing import Any

from .architectures import INITIALIZER_RANGE

PAIRS = {"gpt2-opt": "GPT-2 and OPT", "neox-phi": "GPT-NeoX and Phi", "llama-qwen2": "Llama and Qwen2"}


def model_page(card: dict[str, Any]) -> str:
    """Write the page of one model.

    Parameters
    ----------
    card : dict
        The content of its ``card.json``.

    Returns
    -------
    str
        Markdown.
    """
    training, recipe = card["training"], card["training"]["recipe"]
    factors = _table(
        ["factor", "value"],
        [[name.replace("_", " "), _word(value)] for name, value in card["factors"].items()],
    )
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    held_out = "; ".join(f"{name}: {', '.join(books)}" for name, books in card["corpus"]["held_out"].items())
    losses = _table(
        ["held-out text", "tokens", "model", "bigram", "unigram", "below the bigram"],
        [
            [
                name,
                *(_number(values[key]) for key in ("tokens", "model", "bigram", "unigram", "below_bigram")),
            ]
            for name, values in card["losses"].items()
        ],
    )
    weights = card["weights"]
    return f"""# {card["name"]}

A small causal language model of the embedded panel of dynstat: {card["class"]},
{card["parameters"]:,} parameters, trained from scratch on public-domain English
(corpus *{card["corpus"]["name"]}*, seed {card["seed"]}). It is made for measuring dynamics across
architectures, not for writing text.

## Architecture
{card["layers"]} layers, width {card["width"]}, {card["heads"]} heads, MLP {card["mlp_width"]},
vocabulary {card["vocabulary"]:,}, context {card["context"]}.

{factors}

## Training
{training["updates"]:,} updates of {recipe["batch"]} sequences of {recipe["context"]} tokens
({training["tokens_read"]:,} tokens read; the corpus has {training["corpus_tokens"]:,});
`<|endoftext|>` starts every sequence. AdamW, highest rate {recipe["learning_rate"]:g},
{recipe["warmup"]} updates of warm-up, then a half cosine; weight decay {recipe["weight_decay"]:g},
gradient norm clipped at {recipe["clip"]:g};
all matrices drawn with deviation {INITIALIZER_RANGE:g}, no dropout.
Device {training["device"]} ({training["machine"]}, {training["cpu_capability"]}),
threads {training["threads"]}, deterministic algorithms; {versions}.

Held out, whole books: {held_out}.

## Losses of the stored weights (nats a token)
{losses}

The bigram is counted on the curated training tokens (absolute discount {card["bigram_discount"]:g},
interpolated with the unigram). *raw* is the held-out text mixed with the debris of web text, of
which the model has seen none.

## Files
`{weights["file"]}`: {weights["dtype"]}, {weights["bytes"]:,} bytes,
SHA-256 `{weights["sha256"]}`.
The tokenizer is in `../tokenizer/` (its file has
SHA-256 `{card["tokenizer_sha256"]}`).

Licence of the weights: {card["licence"]}. The training texts are in the public domain.
"""


def panel_page(panel: dict[str, Any]) -> str:
    """Write the page of the embedded panel.

    Parameters
    ----------
    panel : dict
        The content of ``models.json``.

    Returns
    -------
    str
        Markdown.
    """
    models, tokenizer = panel["models"], panel["tokenizer"]
    measured = _table(
        ["model", "class", "parameters", "loss, curated", "below the bigram", "loss, raw"],
        [
            [
                f"`{m['name']}`",
                m["class"],
                _number(m["parameters"]),
                _number(m["losses"]["curated"]),
                _number(m["below_bigram"]),
                _number(m["losses"]["raw"]),
            ]
            for m in models
        ],
    )
    names = ("norm", "positions", "parallel_block", "activation", "biases")
    factors = _table(
        ["model", *(name.replace("_", " ") for name in names)],
        [[f"`{m['name']}`", *(_word(m["factors"][name]) for name in names)] for m in models],
    )
    sizes = ", ".join(f"{name} {_number(value)}" for name, value in tokenizer["bytes_per_token"].items())
    size = sum(m["bytes"] for m in models)
    return f"""# The embedded panel

{len(models)} causal language models of different architectures, of equal depth, width, heads, vocabulary
and context, trained on the same sequences in the same order. They are **three near-pairs**
({"; ".join(PAIRS.values())}): within a pair the blocks are nearly
the same, so the panel holds about three independent designs, not six. Nothing found on it speaks
for language models at large.

{measured}

Losses are in nats a token, on whole books that were held out, measured on the stored weights; the
card in each folder has them for every source. The weights take {size:,} bytes in all.

{factors}

Embeddings are tied and weights drawn alike in all. A folder holds `model.safetensors` (float16; load
with `dtype=float32`), `config.json`, `generation_config.json` (no end of text: a run goes to its
budget), `card.json` and its page. `models.json` has the tables above for programs.

## Tokenizer
One for all, in `tokenizer/`: byte-level BPE, {tokenizer["vocabulary"]:,} tokens, a token a digit, trained on
equal parts of clean and raw text. `<|endoftext|>` is token 0 and is never added by itself: set it
before every text, as in training. Bytes a token on held-out text: {sizes}.
Prompts are matched under it, so it never changes. It is not copied into the folders of the models:
name it in the panel file, since a loader that guesses a tokenizer from the architecture gives other
ids.

## Training them again
    python -m dynstat.extraction.training --corpora DIR --out OUT

DIR holds the four corpus files, checked by SHA-256; see `docs/training.md`.

## Licence
Weights and tokenizer: {panel["licence"]}. They were trained on texts in the public domain (novels of Jane
Austen, the King James Bible, plays of Shakespeare, addresses of US presidents) and, the tokenizer
alone, on generated debris of web text.
"""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _word(value: str | bool) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else value
