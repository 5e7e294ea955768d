"""Cut the texts of ``data/texts`` out of the held-out books, clear of every prompt.

Run ``python -m dynstat.extraction.training.held_out_text --corpora DIR --out data/texts``.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dynstat import data_path
from dynstat.errors import DynstatError
from dynstat.files import sha256_bytes, write_atomic, write_json

from .corpora import HELD_OUT, SHA256, held_out
from .panel_text import Texts

#: Characters of each source, at least: a passage of whole paragraphs to measure on, one to train on.
HELD_OUT_CHARACTERS = 4600
TUNING_CHARACTERS = 30_000
LICENCE = "CC0-1.0"


def spans(text: str, passages: Iterable[str]) -> list[tuple[int, int]]:
    """Return where passages stand in a text, whatever the white space between their words.

    Parameters
    ----------
    text : str
        Any text.
    passages : iterable of str
        Passages; one that is not there has no span.

    Returns
    -------
    list of (int, int)
        First character and the one after the last, in the order of the text.
    """
    found = []
    for passage in passages:
        pattern = r"\s+".join(map(re.escape, passage.split()))
        found += [m.span() for m in re.finditer(pattern, text)] if pattern else []
    return sorted(found)


def cut(text: str, taken: list[tuple[int, int]]) -> tuple[str, str]:
    """Cut a passage to measure on and one to train on.

    Parameters
    ----------
    text : str
        Cleaned text of one source.
    taken : list of (int, int)
        Spans that may be in neither passage.

    Returns
    -------
    measure, train : str
        The first run of whole lines, 4,600 characters long, that touches no span; and lines after it
        that touch none, 30,000 characters in all.

    Raises
    ------
    DynstatError
        S404 where the text is too short.
    """
    lines: list[tuple[str, bool]] = []
    at = 0
    for line in text.splitlines(keepends=True):
        lines.append((line, all(b <= at or a >= at + len(line) for a, b in taken)))
        at += len(line)
    measure: list[str] = []
    train: list[str] = []
    for line, free in lines:
        if sum(map(len, measure)) >= HELD_OUT_CHARACTERS:
            if free and sum(map(len, train)) < TUNING_CHARACTERS:
                train.append(line)
        else:
            # A passage begins with a line of text and not with the blank before it.
            measure = [*measure, line] if free and (measure or line.strip()) else []
    if sum(map(len, train)) < TUNING_CHARACTERS:
        raise _too_short(text)
    return "".join(measure).strip("\n") + "\n", "".join(train).strip("\n") + "\n"


def _too_short(text: str) -> DynstatError:
    return DynstatError(
        "S404",
        "a text is too short to be cut",
        found=f"{len(text)} characters",
        expected=f"{HELD_OUT_CHARACTERS} in one piece and {TUNING_CHARACTERS} after it, clear of prompts",
        mend="give more text",
    )


def cut_texts(corpora: Path) -> dict[str, str]:
    """Cut both texts from all four sources.

    Parameters
    ----------
    corpora : Path
        Folder with the corpus files.

    Returns
    -------
    dict of str to str
        File name to text.

    Raises
    ------
    DynstatError
        F001 and X213 as in training, S404.
    """
    with data_path("prompts/cloze.csv").open(encoding="utf-8", newline="") as f:
        items = [row["context"] for row in csv.DictReader(f)]
    parts = [cut(text, spans(text, items)) for text in held_out(corpora).values()]
    return {
        "held_out.txt": "\n".join(p[0] for p in parts),
        "tuning.txt": "\n".join(p[1] for p in parts),
    }


def write_texts(corpora: Path, out: Path) -> None:
    """Write the texts and their manifest.

    Parameters
    ----------
    corpora : Path
        Folder with the corpus files.
    out : Path
        Folder of the texts.

    Raises
    ------
    DynstatError
        As :func:`cut_texts`, and F002.
    """
    files: dict[str, Any] = {}
    for name, text in cut_texts(corpora).items():
        data = text.encode()
        write_atomic(out / name, data)
        files[name] = {
            "bytes": len(data),
            "licence": LICENCE,
            "sha256": sha256_bytes(data),
            "tokens": {"panel": len(Texts.encode(text, data_path("models/tokenizer")))},
        }
    manifest = {
        "files": files,
        "made_by": "python -m dynstat.extraction.training.held_out_text",
        "sources": {
            name: {"books": [b.title for b in books], "sha256": SHA256[name]}
            for name, books in HELD_OUT.items()
        },
    }
    write_json(out / "MANIFEST.json", manifest)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dynstat.extraction.training.held_out_text", description=__doc__
    )
    parser.add_argument("--corpora", type=Path, required=True, help="folder with the four corpus files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the texts")
    options = parser.parse_args(arguments)
    try:
        write_texts(options.corpora, options.out)
    except DynstatError as error:
        print(error, file=sys.stderr)
        return int(error.exit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
