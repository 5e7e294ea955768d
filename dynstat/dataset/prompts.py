"""Read prompt files: CSV in UTF-8, a row a prompt. Needs no numpy."""

from __future__ import annotations

import csv
import io
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import DynstatError
from ..files import read_text, sha256_file

REQUIRED = ("id", "text", "category")
DEFAULTS: dict[str, Any] = {"split": "panel", "template": "", "answers": "", "distractors": ""}
LISTS = ("answers", "distractors")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def read_prompts(path: str | os.PathLike[str], split: str | None = None) -> list[dict[str, Any]]:
    """Return the prompts of a file, in its order.

    Parameters
    ----------
    path : path
        CSV with columns id, text, category and, at need, split ("panel" where absent), template, answers,
        distractors (lists separated by ``|``). Further columns are kept as text.
    split : str, optional
        Keep the prompts of this split only.

    Returns
    -------
    list of dict
        answers and distractors are lists of str.

    Raises
    ------
    DynstatError
        F001, F003 (file), Y002 (columns), Y003 (duplicate id, unknown split), X205 (empty text), D106
        (control characters). All faulty rows are listed in one pass.
    """
    path = Path(path)
    # The first character may be the mark that spreadsheet programs write.
    text = read_text(path).removeprefix("\ufeff")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, restkey="", restval=None)
    try:
        columns = list(reader.fieldnames or [])
        _check_columns(columns, path)
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as e:
        raise DynstatError(
            "F003", f"{path.name} is not valid CSV: {e}", where=f"{path}:{reader.line_num}"
        ) from e
    seen: dict[str, int] = {}
    faults: list[tuple[str, str]] = []
    prompts = []
    for line, row in lines:
        at = f"{path.name}:{line}"
        if "" in row or None in row.values():
            faults.append(("F003", f"{at}: the row has another number of fields than the header"))
            continue
        if not row["id"].strip():
            faults.append(("Y003", f"{at}: the id is empty"))
        elif row["id"] in seen:
            faults.append(("Y003", f"{at}: id {row['id']!r} was used in line {seen[row['id']]}"))
        seen.setdefault(row["id"], line)
        if not row["text"].strip():
            faults.append(("X205", f"{at}: prompt {row['id']!r} is empty"))
        if not row["category"].strip():
            faults.append(("Y003", f"{at}: prompt {row['id']!r} has no category"))
        for key, value in row.items():
            if bad := _CONTROL.search(value):
                faults.append(("D106", f"{at}: {key} holds the control character {bad.group()!r}"))
        prompts.append(_prompt(row))
    if faults:
        raise DynstatError(
            faults[0][0],
            f"{path.name} has {len(faults)} faulty row{'s' * (len(faults) > 1)}",
            where=str(path),
            mend="every prompt needs an id of its own, a text and a category",
            problems=[f for _, f in faults],
        )
    if not prompts:
        raise DynstatError("X205", f"{path.name} holds no prompt", where=str(path))
    if split is None:
        return prompts
    kept = [p for p in prompts if p["split"] == split]
    if not kept:
        raise DynstatError(
            "Y003",
            f"no prompt of {path.name} has split {split!r}",
            where=str(path),
            found=split,
            expected=" | ".join(sorted({p["split"] for p in prompts})),
        )
    return kept


def prompts_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the prompt file's bytes."""
    return sha256_file(path)


def _check_columns(columns: list[str], path: Path) -> None:
    known = [*REQUIRED, *DEFAULTS]
    if missing := [c for c in REQUIRED if c not in columns]:
        raise DynstatError(
            "Y002",
            f"{path.name} lacks columns",
            where=f"{path}:1",
            found=", ".join(columns),
            expected=", ".join(missing),
        )
    if len(set(columns)) != len(columns):
        raise DynstatError(
            "Y002", f"{path.name} names a column twice", where=f"{path}:1", found=", ".join(columns)
        )
    for c in columns:
        # Extra columns are welcome; one that looks like a misspelt column of the format is not.
        if c not in known and (near := get_close_matches(c, known, n=1, cutoff=0.8)):
            raise DynstatError(
                "Y002",
                f"{path.name} has the unknown column {c!r}",
                where=f"{path}:1",
                found=c,
                expected=", ".join(known),
                mend=f"did you mean {near[0]!r}?",
            )


def _prompt(row: dict[str, str]) -> dict[str, Any]:
    prompt: dict[str, Any] = DEFAULTS | row
    prompt["split"] = prompt["split"] or DEFAULTS["split"]
    for key in LISTS:
        prompt[key] = [part.strip() for part in prompt[key].split("|") if part.strip()]
    return prompt
