"""Report token lengths of prompts by split and category, under any tokenizer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynstat.errors import DynstatError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer of a ``tokenizer.json`` or of a GGUF file.

    Parameters
    ----------
    path : Path
        A ``tokenizer.json``, a folder that holds one, or a ``.gguf`` file.

    Returns
    -------
    Tokenizer
        The fast tokenizer, read from the file itself.

    Raises
    ------
    DynstatError
        F001 where there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise DynstatError("F001", f"{path.name} does not exist", where=str(path), expected="a tokenizer")
    if path.suffix == ".gguf":
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        return tokenizer.backend_tokenizer
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def token_lengths(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Count the tokens of every text, special tokens left out.

    Parameters
    ----------
    tokenizer : Tokenizer
        A fast tokenizer.
    texts : sequence of str
        Prompts; for a word that is read after a prompt, the word with its leading space.

    Returns
    -------
    list of int
        One count a text, in tokens, at least 0.
    """
    return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def length_table(
    rows: Sequence[Mapping[str, Any]], lengths: Sequence[int], key: str = "category"
) -> dict[str, dict[str, Any]]:
    """Summarise token lengths by group.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of a prompt file.
    lengths : sequence of int
        Token counts of these rows, in the same order.
    key : str
        Column that names the group.

    Returns
    -------
    dict of str to dict
        Group to ``n``, ``mean`` and ``sd`` (tokens, rounded to 3 places; sd with n - 1) and
        ``lengths`` (count of prompts at every length, ascending).
    """
    groups: dict[str, list[int]] = {}
    for row, length in zip(rows, lengths, strict=True):
        groups.setdefault(str(row[key]), []).append(length)
    return {
        name: {
            "n": len(values),
            "mean": round(statistics.fmean(values), 3),
            "sd": round(statistics.stdev(values), 3) if len(values) > 1 else 0.0,
            "lengths": {str(v): values.count(v) for v in sorted(set(values))},
        }
        for name, values in groups.items()
    }


def largest_gaps(table: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    """Give the largest difference of means and of standard deviations between groups.

    Parameters
    ----------
    table : mapping
        What :func:`length_table` returns.

    Returns
    -------
    mean_gap, sd_gap : float
        In tokens; both 0 where every group has the same lengths.
    """
    means = [group["mean"] for group in table.values()]
    deviations = [group["sd"] for group in table.values()]
    return max(means) - min(means), max(deviations) - min(deviations)
