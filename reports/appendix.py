"""The plan as an appendix: in words, and as canonical JSON in a file whose SHA-256 is the plan's hash."""

from __future__ import annotations

import json
from pathlib import Path

from dynstat.errors import DynstatError
from dynstat.files import canonical_json, read_text, sha256_bytes, write_atomic

from .markup import ds, short, span, text
from .results import Results

PLAN_FILE = "locked_plan.json"


def plan(results: Results, linked: bool) -> str:
    """Return the plan in words, section by section as it was registered.

    Parameters
    ----------
    results : Results
    linked : bool
        Whether the canonical JSON lies beside the report.
    """
    hash_ = f"SHA-256 {short(results, 'plan.sha256')}"
    where = (
        f"The plan as canonical JSON is the file [{PLAN_FILE}]({PLAN_FILE}) beside this report; the SHA-256 "
        f"of its bytes is the plan's hash ({ds(results, 'plan.sha256')})."
        if linked
        else f"The plan itself ({hash_}) does not lie beside this report."
    )
    blocks = [where]
    sections: dict[str, dict[str, list[str]]] = {}
    for v in results.under("plan.words"):
        section = sections.setdefault(str(v.groups.get("section", "")), {})
        section.setdefault(str(v.groups.get("subject", "")), []).append(span(v))
    for name, subjects in sections.items():
        blocks.append(f"**{text(name)}**")
        lines = []
        for subject, words in subjects.items():
            if len(words) == 1:
                lines.append(f"- **{text(subject)}:** {words[0]}")
            else:
                lines += [f"- **{text(subject)}:**", "", *(f"    - {w}" for w in words), ""]
        blocks.append("\n".join(lines).rstrip())
    return "\n\n".join(blocks)


def write_plan(results: Results, out: Path) -> bool:
    """Write ``locked_plan.json`` from the lock beside the results; return whether it is there.

    Raises
    ------
    DynstatError
        R502 where the lock beside the results holds another plan than the results name.
    """
    lock = out / "plan.lock.json"
    if not lock.is_file():
        return False
    try:
        content = canonical_json(json.loads(read_text(lock))["plan"])
    except (ValueError, KeyError, TypeError) as e:
        raise _other(lock, "not a lock") from e
    wanted = str(results.raw("plan.sha256") or "")
    if (found := sha256_bytes(content)) != wanted:
        raise _other(lock, found, wanted)
    write_atomic(out / PLAN_FILE, content)
    return True


def _other(lock: Path, found: str, wanted: str = "a lock with its plan") -> DynstatError:
    return DynstatError(
        "R502",
        "plan.lock.json does not hold the plan that results.json names",
        where=str(lock),
        found=found,
        expected=wanted,
        mend="run the study anew with `dynstat run`",
    )
