"""Text to token ids: the tokenizer that the panel names, the start token, and what is valid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynstat.errors import DynstatError
from dynstat.files import sha256_bytes

if TYPE_CHECKING:
    from ..panels.panel import Panel
    from .sources import Source

# They name special tokens and add tokens to those of tokenizer.json, and may say how it splits.
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class Encoder:
    """One model's way from text to ids.

    Attributes
    ----------
    tokenizer : PreTrainedTokenizerFast
        Used without its own special tokens.
    start : tuple of int
        The start token's id, or nothing.
    end_of_text : int
        Id that ends a text, -1 where the tokenizer has none.
    special : frozenset of int
        Ids of special tokens.
    valid : tuple of int
        Every id with an entry, ascending.
    """

    tokenizer: Any
    start: tuple[int, ...]
    end_of_text: int
    special: frozenset[int]
    valid: tuple[int, ...]

    @cached_property
    def vocabulary(self) -> dict[str, Any]:
        """What of the tokenizer changes values beside the ids of the prompts: ids that are named or valid."""
        return {
            "end_of_text": self.end_of_text,
            "special_sha256": _sha256(sorted(self.special)),
            "valid_sha256": _sha256(self.valid),
        }

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, start token first."""
        return [*self.start, *self.tokenizer.encode(text, add_special_tokens=False)]

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, exactly as the tokens spell it."""
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _sha256(ids: Iterable[int]) -> str:
    return sha256_bytes(" ".join(map(str, ids)).encode())


def load_tokenizer(source: Source) -> Any:
    """Load the tokenizer of a model as its file says.

    ``AutoTokenizer`` rebuilds the tokenizer of some architectures from their own recipe and gives other
    ids; the class used here reads tokenizer.json, and of the files beside it which tokens are special.
    """
    from transformers import PreTrainedTokenizerFast

    if source.tokenizer is not None:
        return PreTrainedTokenizerFast.from_pretrained(str(source.tokenizer), local_files_only=True)
    file = source.weights[0]
    return _from_gguf(file, file.stat().st_mtime_ns)


def files_beside(source: Source) -> tuple[bytes, ...]:
    """Return what lies beside tokenizer.json and has a say in the ids, empty where it is not there."""
    if source.tokenizer is None:
        return ()
    files = [source.tokenizer / name for name in BESIDE]
    return tuple(f.read_bytes() if f.is_file() else b"" for f in files)


@lru_cache(maxsize=4)
def _from_gguf(file: Path, _changed: int) -> Any:
    # Reading it out of the file takes seconds, and both the hash and the plan need it.
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        str(file.parent), gguf_file=file.name, local_files_only=True, trust_remote_code=False
    )


def encoder(source: Source, panel: Panel) -> Encoder:
    """Load a model's tokenizer and settle its start token.

    Raises
    ------
    DynstatError
        F003 (cannot be read), X203 (the start token is not one token of it).
    """
    where = f"model {source.spec.id!r}"
    try:
        tokenizer = load_tokenizer(source)
    except DynstatError:
        raise
    except Exception as e:  # every library below has its own classes for a bad file
        raise DynstatError("F003", f"the tokenizer cannot be read: {e}", where=where) from e
    return encoder_of(tokenizer, panel.start_token, where)


def encoder_of(tokenizer: Any, start_token: str, where: str) -> Encoder:
    """Make the encoder of a tokenizer object and settle its start token.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Used without its own special tokens.
    start_token : str
        "none", "bos", or the text of a token.
    where : str
        Whose it is, for errors.

    Raises
    ------
    DynstatError
        X203 (the start token is not one token of it).
    """
    vocabulary = tokenizer.get_vocab()
    start: tuple[int, ...] = ()
    if start_token != "none":
        token = tokenizer.bos_token if start_token == "bos" else start_token
        if token not in vocabulary:
            raise DynstatError(
                "X203",
                "the start token is not in the tokenizer",
                where=where,
                found=start_token,
                expected="a token of the tokenizer, bos where it has one, or none",
                mend="correct `start_token:`",
            )
        start = (vocabulary[token],)
    end = tokenizer.eos_token_id
    return Encoder(
        tokenizer,
        start,
        -1 if end is None else int(end),
        frozenset(tokenizer.all_special_ids),
        tuple(sorted(set(vocabulary.values()))),
    )
