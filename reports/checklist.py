"""The checklist: practices of TOP 2025, and what a study of language models should report."""

from __future__ import annotations

from .markup import table
from .multiverse import has
from .results import Results

YES, NO, NOT_APPLICABLE = "yes", "**no**", "not applicable"


def checklist(results: Results) -> str:
    """Return the checklist as two tables: yes, no or not applicable, with where to look.

    The first follows the Transparency and Openness Promotion guidelines of 2025, which ask when registration,
    plan, code and data came to be; the second the reporting items for studies of language models.
    """
    return "\n\n".join(
        [
            _table(
                "tbl-checklist", "Checklist: registration and openness (after TOP 2025).", _openness(results)
            ),
            _table("tbl-checklist-models", "Checklist: studies of language models.", _models(results)),
        ]
    )


def _table(label: str, caption: str, rows: list[tuple[str, str, str]]) -> str:
    return table(label, caption, ["Item", "Answer", "Where"], [list(row) for row in rows], [56, 18, 26])


def _openness(results: Results) -> list[tuple[str, str, str]]:
    locked = bool(results.raw("lock.sha256"))
    registered = None if results.exploratory else results.stamp == "registered"
    return [
        ("The plan was locked", _answer(locked), "@sec-timeline"),
        ("The lock was made before the data were accessed", _answer(registered), "@sec-timeline"),
        (
            "The time of the lock rests on more than this machine's word (level L2 or L3)",
            _answer(results.raw("lock.evidence") in ("L2", "L3") if locked else None),
            "@sec-timeline",
        ),
        (
            "The working tree was clean at the lock",
            _answer(results.raw("lock.dirty") is False if locked else None),
            "@sec-reproduction",
        ),
        ("The whole plan can be read", _answer(bool(results.under("plan.words"))), "@sec-plan"),
        (
            "What was known of the data before is stated",
            _answer(bool(results.raw("study.prior_knowledge"))),
            "@sec-timeline",
        ),
        ("Every registered claim is reported, in the order of registration", YES, "@tbl-decisions"),
        (
            "Rejected and inconclusive claims have tables of their own",
            YES,
            "@tbl-rejected, @tbl-inconclusive",
        ),
        (
            "No deviation from the plan",
            _answer(not results.raw("derived.count.deviations")),
            "@tbl-deviations",
        ),
        (
            "Every deviation above a note is declared with its reason",
            _answer(not results.undeclared if results.raw("derived.count.deviations") else None),
            "@tbl-deviations",
        ),
        (
            "Other defensible analyses are shown",
            _answer(has(results)),
            _where(has(results), "@sec-multiverse"),
        ),
        ("Exploratory results stand apart and have no decision", YES, "@sec-exploratory"),
        ("Commands, code versions and seeds are given", _answer(_reproducible(results)), "@sec-reproduction"),
        (
            "The data are identified by their content",
            _answer(bool(results.raw("data.content_hash"))),
            "@sec-hashes",
        ),
    ]


def _models(results: Results) -> list[tuple[str, str, str]]:
    fields = {f: _of_all(results, f) for f in ("revision", "weights_sha256", "tokenizer_sha256", "dtype")}
    extraction = bool(results.under("environment.extraction"))
    return [
        (
            "Every model has a revision and a hash of its weights",
            _answer(fields["revision"] and fields["weights_sha256"]),
            "@sec-identity",
        ),
        ("Every tokenizer has a hash", _answer(fields["tokenizer_sha256"]), "@sec-hashes"),
        ("Number format of the weights is stated", _answer(fields["dtype"]), "@sec-identity"),
        (
            "Libraries and device of the extraction are recorded",
            _answer(extraction),
            "@sec-reproduction",
        ),
        (
            "Prompts are bound by a hash and apart from those of the pilot",
            _answer(bool(results.raw("lock.inputs_sha256")) if results.raw("lock.sha256") else None),
            "@sec-plan",
        ),
        (
            "Every metric names its formula, its options and its origin",
            _answer(bool(results.under("definition"))),
            "@sec-definitions",
        ),
        (
            "Token positions that are left out are stated",
            _answer(bool(results.under("plan.words"))),
            "@sec-plan",
        ),
        (
            "The unit of resampling is stated for every interval",
            _answer(_units(results)),
            "@sec-methods",
        ),
        ("Seeds of random parts are recorded", _answer(_seeds(results)), "@sec-methods"),
        ("The claims are limited to what was measured", _answer(_limits(results)), "@sec-cards"),
    ]


def _reproducible(results: Results) -> bool:
    return bool(results.under("reproduce")) and bool(results.under("environment")) and _seeds(results)


def _seeds(results: Results) -> bool:
    return any(e.number("seed") is not None for e in results.estimates)


def _units(results: Results) -> bool:
    shown = [e for e in results.estimates if e.number("low") is not None]
    return bool(shown) and all(e.words("unit") for e in shown)


def _limits(results: Results) -> bool:
    return bool(results.hypotheses) and all(results.under(f"{h}.does_not_show") for h in results.hypotheses)


def _of_all(results: Results, field: str) -> bool:
    return bool(results.models) and all(results.raw(f"model.{m}.{field}") for m in results.models)


def _where(there: bool, label: str) -> str:
    return label if there else "none was registered"


def _answer(yes: bool | None) -> str:
    return NOT_APPLICABLE if yes is None else YES if yes else NO
