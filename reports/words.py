"""Fixed words of every report: decisions, reason codes, evidence levels, what may never be said."""

from __future__ import annotations

import re

GLYPH = {"supported": "✓", "rejected": "✗", "inconclusive": "○"}
WORD = {
    d: d.replace("_", " ")
    for d in ("supported", "rejected", "inconclusive", "not_testable", "inadmissible", "not_run")
}

EVIDENCE = {
    "L0": "self-asserted: the lock file exists",
    "L1": "git, local clock: the lock is committed",
    "L2": "third-party copy: another holds the lock too",
    "L3": "third-party time: another attests when the lock was there",
}

# Support and rejection are all that a test can give; words beyond them are never printed.
FORBIDDEN = re.compile(
    r"\b(?:prov(?:e[sd]?|en|ing|ably)|trend(?:s|ed|ing)?|marginal(?:ly)?|fail(?:s|ed|ing)?\s+to\s+reach)\b",
    re.I,
)

# What a count of an estimate counts, where its name does not say so by itself.
COUNTED = {
    "groups": "groups left out in turn",
    "row": "rows",
    "run": "runs",
    "model": "models",
    "prompt": "prompts",
    "category": "categories",
    "template": "templates",
}


def counted(level: str, unit: str = "") -> str:
    """Return in words what ``n.<level>`` counts: ``model:prompt`` gives ``model × prompt cells``.

    Parameters
    ----------
    level : str
        Name of the count.
    unit : str
        Unit of resampling of the estimate, which its ``units`` are.

    Examples
    --------
    >>> counted("model:prompt"), counted("units", "prompt"), counted("units", "category"), counted("runs")
    ('model × prompt cells', 'prompts drawn or left out', 'categories drawn or left out', 'runs')
    """
    if level == "units":
        return f"{plural(unit)} drawn or left out" if unit and " " not in unit else "units of resampling"
    return level.replace(":", " × ") + " cells" if ":" in level else COUNTED.get(level, level)


def plural(unit: str) -> str:
    """Return a unit in the plural: ``prompt`` gives ``prompts``.

    Examples
    --------
    >>> plural("category"), plural("checkpoint"), plural("prompts")
    ('categories', 'checkpoints', 'prompts')
    """
    if unit.endswith("s"):
        return unit
    return unit[:-1] + "ies" if unit.endswith("y") else unit + "s"


GLOSSARY = (
    (
        "Supported",
        "the data exclude, at the adjusted level, what the registered rule says would speak against the "
        "claim. It is a statement about these models and prompts, not about truth.",
    ),
    (
        "Rejected",
        "the data exclude the claim itself, by a test of its own. That a result is not significant never "
        "rejects a claim.",
    ),
    ("Inconclusive", "the data exclude neither. The table says what would resolve it."),
    (
        "Not testable, inadmissible, not run",
        "states, not decisions: the data cannot decide, a registered gate was "
        "not passed, or no result exists. No registered claim is dropped.",
    ),
    (
        "This panel",
        "the models and prompt categories are fixed, and the prompts stand for others of their kind. "
        "Decisions speak about this panel.",
    ),
    (
        "Population of models",
        "the models are a draw from many. With few models these intervals are wide; they stand "
        "beside the panel's and decide nothing.",
    ),
    (
        "Unit of resampling",
        "what is drawn independently, and so what the interval counts: prompts, not tokens, "
        "layers or repeated samples of one prompt.",
    ),
    (
        "Interval and decision",
        "intervals are shown at the level printed beside them and are not adjusted. Decisions "
        "are made at the level of each test, which the family's correction gives: with Bonferroni's, alpha "
        "divided by the number of its hypotheses. A p adjusted for the family is compared with alpha itself.",
    ),
    (
        "Multiverse",
        "other analyses of the same data that the plan names in advance. They show how far the outcome "
        "depends on choices; the registered analysis decides.",
    ),
    (
        "Deviation",
        "a difference between what was locked and what ran. *Note*: it changes nothing. *Sensitivity*: both "
        "results are shown and the registered one decides. *Downgrade*: the claim cannot be supported. "
        "*Void*: no decision.",
    ),
    (
        "Chance level",
        "what an estimated share tends to when the term has no effect; a share near it says nothing.",
    ),
    (
        "Origin",
        "*published*: the formula stands in the source named. *dynstat*: no published formula was found and "
        "this project chose one.",
    ),
)
