"""The multiverse: every analysis that the plan names beside the registered one, and how many agree."""

from __future__ import annotations

from .markup import MISSING, ds, interval, slug, span, table, text
from .results import Results, Value
from .words import GLYPH

#: More universes than these are left to the figure and to results.json; what failed is always listed.
MOST_ROWS = 64
ROLES = {
    "registered": "registered",
    "counted": "",
    "separate": "another question perhaps, not counted",
    "beside": "worse than registered, not counted",
}


def has(results: Results) -> bool:
    """Return whether any hypothesis has a multiverse."""
    return bool(hypotheses(results))


def hypotheses(results: Results) -> list[str]:
    """Return the hypotheses that have a multiverse, in the order of registration."""
    return [h for h in results.hypotheses if f"multiverse.{h}.n" in results]


def agreement(results: Results, h: str, *, verb: str = "agree") -> str:
    """Return ``18 of 24 universes agree``, or nothing where there is no multiverse."""
    start = f"multiverse.{h}"
    if f"{start}.agree" not in results:
        return ""
    of = f"{start}.run" if f"{start}.run" in results else f"{start}.n"
    return f"{ds(results, f'{start}.agree')} of {ds(results, of)} universes {verb}"


def universes(results: Results, h: str) -> dict[str, dict[str, Value]]:
    """Return the fields of every universe of a hypothesis, in the order of the results."""
    found = results.records(f"multiverse.{h}")
    return {name: fields for name, fields in found.items() if name != "variance" and _is_universe(fields)}


def choices(fields: dict[str, Value]) -> dict[str, Value]:
    """Return the choices of a universe by dimension."""
    return {k.partition(".")[2]: v for k, v in fields.items() if k.startswith(("choice.", "choices."))}


def outcome(fields: dict[str, Value]) -> str:
    """Return the decision or state of a universe as it is written in results.json."""
    value = fields.get("outcome") or fields.get("decision")
    return str(value.raw) if value is not None and value.raw else ""


def section(results: Results, figures: dict[str, str]) -> str:
    """Return the whole section, or nothing where no hypothesis has a multiverse.

    Parameters
    ----------
    figures : mapping of hypothesis to str
        The Markdown of its specification curve, where one was drawn.
    """
    named = hypotheses(results)
    if not named:
        return ""
    said = "Each universe is one way to analyse the same data that the plan names in advance; "
    said += (
        "the run is exploratory, so none has an outcome."
        if results.exploratory
        else "the registered one decides. A universe agrees where it comes to the same outcome by the same "
        "rule."
    )
    blocks = [said, _summary(results, named)]
    taken = labels(named)
    for h in named:
        blocks += [
            _dimensions(results, h, taken[h]),
            figures.get(h, ""),
            _apart(results, h, taken[h]),
            _variance(results, h, taken[h]),
            _table(results, h, taken[h]),
        ]
    return "\n\n".join(b for b in blocks if b)


def labels(named: list[str]) -> dict[str, str]:
    """Return a label for each of these hypotheses, no two alike."""
    taken: dict[str, str] = {}
    for h in named:
        taken[h] = slug(h, taken)
    return taken


def _dimensions(results: Results, h: str, label: str) -> str:
    """Return the choices that the plan varies: type, options, reason; and what it leaves out."""
    start = f"multiverse.{h}.dimension."
    named = [v.key[len(start) : -len(".type")] for v in results.under(start[:-1]) if v.key.endswith(".type")]
    if not named:
        return ""
    rows = []
    for d in named:
        options = [span(v) for v in results.under(f"{start}{d}.option")]
        keys = ("type", "places", "reason")
        kind, places, reason = (ds(results, f"{start}{d}.{k}") for k in keys)
        rows.append([text(d), kind, " / ".join(options), places, reason])
    out = table(
        f"tbl-dimensions-{label}",
        f"{text(h)}: what is varied, the registered option first. Equivalent options are crossed and "
        "counted; uncertain ones make multiverses of their own; non-equivalent ones stand beside, uncounted.",
        ["Choice", "Type", "Options", "Place in the plan", "Reason"],
        rows,
        [14, 14, 26, 20, 26],
    )
    left = [
        f"{span(v)} ({text(v.groups.get('reason', ''))})" for v in results.under(f"multiverse.{h}.left_out")
    ]
    return f"{out}\n\nLeft out by the plan: {'; '.join(left)}." if left else out


def _apart(results: Results, h: str, label: str) -> str:
    """Return what other options of uncertain choices give, and what stands beside, where there is any."""
    found = results.records(f"multiverse.{h}")
    groups = {n: f for n, f in found.items() if "choices" in f and "run" in f and int(f["n"].raw or 0) > 0}
    if len(groups) < 2:
        return ""
    columns = ("choices", "n", "run", "agree", "share_agree", "minimum", "median", "maximum")
    rows = [[text(n), *(span(f.get(k)) for k in columns)] for n, f in groups.items()]
    return table(
        f"tbl-multiverses-{label}",
        f"{text(h)}: M1 holds the registered universe; others answer what may be another question.",
        ["Set", "Choices", "Universes", "Run", "Agree", "Share", "Smallest", "Median", "Largest"],
        rows,
        [9, 31, 10, 8, 8, 8, 9, 8, 9],
        align="llrrrrrrr",
    )


def _summary(results: Results, named: list[str]) -> str:
    keys = ["n", "run", "missing", "errored"]
    header = ["ID", "Universes", "Run", "Missing", "Errored"]
    if not results.exploratory:
        keys += ["agree", "share_agree"]
        header += ["Agree", "Share", "Registered outcome"]
    rows = []
    for h in named:
        row = [text(h), *(ds(results, f"multiverse.{h}.{k}") for k in keys)]
        if not results.exploratory:
            row.append(f"{GLYPH.get(results.decision(h), '')} {ds(results, f'{h}.decision')}".strip())
        rows.append(row)
    caption = (
        "Universes of each claim: those counted, and how many of them agree with the registered outcome."
    )
    if results.exploratory:
        caption = "Universes of each claim: those counted."
    return table(
        "tbl-multiverse",
        caption,
        header,
        rows,
        [8, *[12] * len(keys), 22][: len(header)],
        align=("l" + "r" * len(keys) + "l")[: len(header)],
    )


def _variance(results: Results, h: str, label: str) -> str:
    parts = results.under(f"multiverse.{h}.variance")
    if not parts:
        return ""
    rows = [[text(v.key.removeprefix(f"multiverse.{h}.variance.")), span(v)] for v in parts]
    return table(
        f"tbl-multiverse-variance-{label}",
        f"{text(h)}: share of the variance of the estimate between universes, by choice.",
        ["Choice", "Share"],
        rows,
        [70, 30],
        align="lr",
    )


def _table(results: Results, h: str, label: str) -> str:
    found = universes(results, h)
    if not found:
        return ""
    failed = {name: f for name, f in found.items() if not _ran(f)}
    shown = found if len(found) <= MOST_ROWS else failed
    dimensions = list(dict.fromkeys(d for fields in found.values() for d in choices(fields)))
    rows = [[text(name), _choices(f, dimensions), _estimate(f), _outcome(f)] for name, f in shown.items()]
    caption = f"{text(h)}: universes, the registered one first."
    if shown is not found:
        caption = f"{text(h)}: universes that are missing or failed; results.json lists all of them."
    empty = ["—", "No universe is missing and none failed.", "", ""]
    return table(
        f"tbl-universes-{label}",
        caption,
        ["Universe", "Choices", "Estimate [interval]", "Outcome"],
        rows or [empty],
        [10, 42, 22, 26],
    )


def _is_universe(fields: dict[str, Value]) -> bool:
    return bool(choices(fields)) or bool({"estimate", "outcome", "decision", "state"} & set(fields))


def _ran(fields: dict[str, Value]) -> bool:
    state = fields.get("state")
    return state is None or str(state.raw) in ("run", "", "None")


def _choices(fields: dict[str, Value], dimensions: list[str]) -> str:
    given = choices(fields)
    role = fields.get("role")
    words = ROLES.get(str(role.raw), "") if role else ""
    out = ", ".join(f"{text(d)}: {span(given[d])}" for d in dimensions if d in given)
    return f"{out} ({words})" if words else out or MISSING


def _estimate(fields: dict[str, Value]) -> str:
    value = fields.get("estimate")
    if value is None or value.raw is None:
        return MISSING
    return interval(value, fields.get("low"), fields.get("high"))


def _outcome(fields: dict[str, Value]) -> str:
    value = fields.get("outcome") or fields.get("decision")
    why = span(fields.get("why"), missing="")
    if not _ran(fields):
        return f"**{span(fields['state'])}**" + (f": {why}" if why else "")
    glyph = GLYPH.get(outcome(fields), "")
    return f"{glyph} {span(value)}".strip() + (f": {why}" if why else "")
