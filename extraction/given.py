"""Prompts as a session gives them: texts, a mapping, a frame, a file; all become rows of a prompt file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dynstat.dataset.prompts import DEFAULTS, LISTS, read_prompts
from dynstat.errors import DynstatError

from .panels.access import SPLIT
from .panels.panel import check_columns

Prompts = str | os.PathLike[str] | Mapping[str, str] | Iterable[str] | Any
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def prompts_from(given: Prompts) -> list[dict[str, Any]]:
    """Return prompts as `read_prompts` would.

    Parameters
    ----------
    given : list of str, mapping, DataFrame, str or path
        Texts, called p0, p1, ...; texts by identifier; rows with ``text`` and, at will, ``id``, ``category``,
        ``template``, ``split``, ``answers``, ``distractors`` and columns of one's own; one text; or a file of
        prompts: a path, or a str that ends in ``.csv``.

    Returns
    -------
    list of dict

    Raises
    ------
    DynstatError
        X205 (no prompt, or an empty one), Y002 (columns), Y003 (a doubled id, something else than text), D106
        (control characters), X211 (prompts of split ``confirmation``), and those of `read_prompts`.
    """
    if isinstance(given, os.PathLike) or (isinstance(given, str) and given.endswith(".csv")):
        prompts = read_prompts(given)
    else:
        prompts = [_prompt(row, i) for i, row in enumerate(_rows(given))]
        _check(prompts)
    check_columns(prompts, "prompts")
    if any(p["split"] == SPLIT for p in prompts):
        raise DynstatError(
            "X211",
            "confirmation prompts are read under a lock only",
            where="prompts",
            found=f"split {SPLIT}",
            expected="prompts of other splits",
            mend="`dynstat extract PANEL --lock LOCK` reads them, and writes down that it did",
        )
    return prompts


def _rows(given: Any) -> list[Mapping[str, Any]]:
    if isinstance(given, str):
        return [{"text": given}]
    if isinstance(given, Mapping):
        return [{"id": name, "text": text} for name, text in given.items()]
    if hasattr(given, "to_dict") and hasattr(given, "columns"):
        if "text" not in given.columns:
            raise DynstatError(
                "Y002",
                "the frame of prompts has no column `text`",
                where="prompts",
                found=", ".join(map(str, given.columns)),
                expected="text, and at will id, category and others",
            )
        return list(given.to_dict("records"))
    if not isinstance(given, Iterable):
        raise _wrong("prompts", given)
    return [{"text": text} for text in given]


def _wrong(where: str, found: object) -> DynstatError:
    return DynstatError(
        "Y003",
        "prompts are text",
        where=where,
        found=f"{found!r:.60} ({type(found).__name__})",
        expected="a list of str, texts by id, a frame with a column text, or a file",
    )


def _prompt(row: Mapping[str, Any], i: int) -> dict[str, Any]:
    name = row.get("id", f"p{i}")
    prompt: dict[str, Any] = {"id": str(name), "text": row["text"], "category": "", **DEFAULTS}
    if not isinstance(prompt["text"], str):
        raise _wrong(f"prompt {prompt['id']!r}", prompt["text"])
    for key, value in row.items():
        if key not in ("id", "text"):
            prompt[str(key)] = value if key in LISTS and isinstance(value, (list, tuple)) else _word(value)
    prompt["split"] = prompt["split"] or DEFAULTS["split"]
    for key in LISTS:
        value = prompt[key]
        parts = value.split("|") if isinstance(value, str) else map(str, value)
        prompt[key] = [part.strip() for part in parts if part.strip()]
    return prompt


def _word(value: Any) -> str:
    """Return what a file would hold: text, and nothing for None and NaN."""
    return "" if value is None or value != value else str(value)


def _check(prompts: list[dict[str, Any]]) -> None:
    faults: list[tuple[str, str]] = []
    seen: set[str] = set()
    for p in prompts:
        if not p["id"].strip() or p["id"] in seen:
            faults.append(
                ("Y003", f"prompt id {p['id']!r} is {'used twice' if p['id'] in seen else 'empty'}")
            )
        seen.add(p["id"])
        if not p["text"].strip():
            faults.append(("X205", f"prompt {p['id']!r} is empty"))
        for key, value in p.items():
            text = value if isinstance(value, str) else " ".join(value)
            if found := _CONTROL.search(text):
                faults.append(
                    ("D106", f"{key} of prompt {p['id']!r} holds the control character {found[0]!r}")
                )
    if not prompts:
        faults.append(("X205", "there is no prompt"))
    if faults:
        raise DynstatError(
            faults[0][0],
            faults[0][1],
            where="prompts",
            expected="prompts with an id of their own and text",
            problems=[f for _, f in faults[1:]],
        )


def is_file(given: object) -> Path | None:
    """Return the file or folder that something names, None where it names none."""
    if not isinstance(given, (str, os.PathLike)):
        return None
    from dynstat import data_path

    text = os.fspath(given)
    if text.startswith("data:"):
        return data_path(text.removeprefix("data:"))
    path = Path(text).expanduser().absolute()
    return path if path.exists() else None
