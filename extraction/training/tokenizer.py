"""Train the one tokenizer of the embedded panel: byte-level BPE on curated and raw text in equal parts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dynstat.files import write_atomic

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
VOCABULARY = 1024
CONTEXT = 256


def train_tokenizer(curated: str, raw: str, vocabulary: int = VOCABULARY) -> Tokenizer:
    """Train a byte-level BPE tokenizer on equal parts of two texts.

    The longer text is cut to the bytes of the shorter one. All 256 bytes are in the alphabet, so any
    Unicode text survives encoding and decoding. No token is added at the beginning of a text:
    ``<|endoftext|>`` (id 0) is set there explicitly, in training and in extraction.

    Parameters
    ----------
    curated, raw : str
        Training texts.
    vocabulary : int, optional
        Number of tokens, at least 257 (256 bytes and the special token).

    Returns
    -------
    Tokenizer
        The same for the same texts, on any number of threads.
    """
    size = min(len(curated.encode()), len(raw.encode()))
    tokenizer = Tokenizer(models.BPE())
    # One token a digit: numbers of equal length then have equal token counts, and no merge is spent
    # on the random numbers of log lines.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    parts = [_first_bytes(curated, size), _first_bytes(raw, size)]
    tokenizer.train_from_iterator(_lines(parts), trainer=trainer)
    return tokenizer


def _first_bytes(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def _lines(texts: list[str]) -> Iterator[str]:
    for text in texts:
        yield from text.splitlines(keepends=True)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a tokenizer so that transformers loads it from its folder.

    Parameters
    ----------
    tokenizer : Tokenizer
        A trained tokenizer.
    folder : Path
        Created if missing; gets ``tokenizer.json`` and ``tokenizer_config.json``.

    Raises
    ------
    DynstatError
        F002 where the folder cannot be written.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    # tokenizer.json last: where it is, it is whole, has its companion, and is never made anew.
    write_atomic(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
    write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
