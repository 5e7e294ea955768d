"""The texts of the panel: curated and raw, for training and held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from . import corpora, debris


@dataclass(frozen=True)
class Texts:
    """Hold the cleaned training and held-out text of every source.

    Attributes
    ----------
    train, held_out : dict of str to str
        Source name to text.
    """

    train: dict[str, str]
    held_out: dict[str, str]

    @property
    def curated(self) -> str:
        """The curated mix of the training books."""
        return corpora.curated(self.train)

    @property
    def raw(self) -> str:
        """The training books with the debris of web text."""
        return debris.raw(self.train, debris.TRAIN_SEED)

    def held_out_corpora(self) -> dict[str, str]:
        """Give the held-out text of every source, then of the curated and the raw mix."""
        return {
            **self.held_out,
            "curated": corpora.curated(self.held_out),
            "raw": debris.raw(self.held_out, debris.HELD_OUT_SEED),
        }

    @staticmethod
    def encode(text: str, tokenizer_folder: Path) -> np.ndarray:
        """Encode a text.

        Parameters
        ----------
        text : str
            Any text.
        tokenizer_folder : Path
            Folder with ``tokenizer.json``.

        Returns
        -------
        ndarray of uint16, shape (n,)
            Token ids, none added.
        """
        tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
        return np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.uint16)


def panel_texts(corpora_dir: Path) -> Texts:
    """Read, check, clean and split the corpora.

    Parameters
    ----------
    corpora_dir : Path
        Folder with the corpus files.

    Returns
    -------
    Texts
        All four sources.

    Raises
    ------
    DynstatError
        F001 or X213, as :func:`corpora.corpus_text`.
    """
    return Texts(corpora.train_text(corpora_dir), corpora.held_out(corpora_dir))
