"""Write the manifest of the prompt files: rows, hashes, counts and token lengths."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynstat.files import read_text, sha256_file, write_atomic, write_json

from .matching import largest_gaps, length_table, token_lengths

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LICENCE = "CC0-1.0"
#: File, the columns whose texts are measured, and the column that groups them.
FILES: dict[str, tuple[tuple[str, ...], str]] = {
    "pilot.csv": (("text",), "category"),
    "panel.csv": (("text",), "category"),
    "confirmation.csv": (("text",), "category"),
    "cloze.csv": (("context",), "source"),
    "ambiguity.csv": (("ambiguous", "disambiguated"), "kind"),
}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file of ``data/prompts``.

    Parameters
    ----------
    path : Path
        UTF-8 CSV with a header.

    Returns
    -------
    list of dict
        One a row, every value text.

    Raises
    ------
    DynstatError
        F001 or F003 where the file cannot be read.
    """
    return list(csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True))


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as RFC 4180 CSV with line feeds, whole or not at all.

    Parameters
    ----------
    path : Path
        Target.
    rows : sequence of mapping
        At least one row; the keys of the first are the header.

    Raises
    ------
    DynstatError
        F002 where the target cannot be written.
    """
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, buffer.getvalue())


def manifest(folder: Path, tokenizers: Mapping[str, Tokenizer]) -> dict[str, Any]:
    """Describe the prompt files of a folder.

    Parameters
    ----------
    folder : Path
        Folder with the files of :data:`FILES`.
    tokenizers : mapping of str to Tokenizer
        Name to tokenizer, under which lengths are given.

    Returns
    -------
    dict
        ``licence`` and ``files``: for each file the rows, the SHA-256 of its bytes, the counts of its
        groups, and under every tokenizer the length table and the largest gap of means and of standard
        deviations (tokens).
    """
    files: dict[str, Any] = {}
    for name, (columns, group) in FILES.items():
        path = Path(folder) / name
        rows = read_rows(path)
        entry: dict[str, Any] = {
            "rows": len(rows),
            "sha256": sha256_file(path),
            "licence": LICENCE,
            "groups": dict(Counter(row[group] for row in rows)),
            "group_column": group,
            "columns": list(rows[0]),
            "tokens": {},
        }
        if "template" in rows[0]:
            entry["templates"] = len({row["template"] for row in rows})
        for label, tokenizer in tokenizers.items():
            entry["tokens"][label] = {}
            for column in columns:
                table = length_table(rows, token_lengths(tokenizer, [r[column] for r in rows]), group)
                mean_gap, sd_gap = largest_gaps(table)
                entry["tokens"][label][column] = {
                    "by_group": table,
                    "largest_mean_gap": round(mean_gap, 3),
                    "largest_sd_gap": round(sd_gap, 3),
                }
        files[name] = entry
    return {"licence": LICENCE, "files": files}


def write_manifest(folder: Path, tokenizers: Mapping[str, Tokenizer]) -> Path:
    """Write ``MANIFEST.json`` beside the prompt files.

    Parameters
    ----------
    folder : Path
        Folder with the files of :data:`FILES`.
    tokenizers : mapping of str to Tokenizer
        Name to tokenizer.

    Returns
    -------
    Path
        The file written; its bytes depend on the prompt files and the tokenizers alone.
    """
    return write_json(Path(folder) / "MANIFEST.json", manifest(folder, tokenizers))
