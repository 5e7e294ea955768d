"""What was measured and how: data, models, definitions, estimates, methods, environment."""

from __future__ import annotations

from .figures import by_key, chance, share_analyses
from .markup import MISSING, NBSP, bullets, callout, ds, interval, short, span, table, text
from .results import EstimateRow, Results
from .words import counted

_IDENTITY = ("revision", "architecture", "family", "parameters", "vocabulary", "dtype")
_HASHES = ("weights_sha256", "tokenizer_sha256")
_NOT_LISTED = ("value", "low", "high", "level", "interval", "unit", "target", "seed")


def caution(results: Results) -> str:
    """Return a sentence where the estimates below belong to claims that a gate has stopped, or nothing."""
    stopped = [text(h) for h in results.hypotheses if results.decision(h) == "inadmissible"]
    if not stopped:
        return ""
    return (
        f"A registered gate was not passed for {', '.join(stopped)}. What is shown here describes "
        "the data; it is no evidence for or against these claims."
    )


def shares(results: Results) -> str:
    """Return a table of all shares: panel, population, eta², omega², chance level; one an analysis."""
    blocks = []
    for number, analysis in enumerate(share_analyses(results)):
        estimates = by_key(results, analysis)
        rows = []
        for key, panel in estimates.items():
            if not key.startswith("share."):
                continue
            term = key[len("share.") :]
            at = chance(estimates, term)
            rows.append(
                [
                    text(term),
                    _interval(panel),
                    _interval(estimates.get(f"population.{key}")),
                    _value(estimates.get(f"eta2.{term}")),
                    _value(estimates.get(f"omega2.{term}")),
                    span(at[0].fields[at[1]]) if at else MISSING,
                ]
            )
        level = next((n for e in estimates.values() if (n := e.number("level")) is not None), None)
        words = f"{100 * level:g}{NBSP}% intervals" if level is not None else "intervals"
        label = "tbl-shares" if number == 0 else f"tbl-shares-{number + 1}"
        blocks.append(
            table(
                label,
                f"Shares of variance of analysis {text(analysis)}, with unadjusted {words}; beside them eta² "
                "and omega² of the fixed-effects analysis of variance, and the chance level of the share.",
                ["Term", "This panel", "Population of models", "eta²", "omega²", "Chance level"],
                rows,
                [22, 23, 23, 10, 11, 11],
            )
        )
    return "\n\n".join(blocks)


def others(results: Results) -> str:
    """Return a table of the estimates that are no variance share and not exploratory, or nothing."""
    drawn = set(share_analyses(results))
    rows = [
        e
        for e in results.estimates
        if not (
            e.analysis in drawn
            and e.key.startswith(("share.", "population.share.", "eta2.", "omega2.", "chance."))
        )
        and (e.purpose != "exploratory" or results.exploratory)
    ]
    if not rows:
        return ""
    return estimates("tbl-estimates", "Further estimates, with unadjusted intervals.", rows)


def estimates(label: str, caption: str, rows: list[EstimateRow]) -> str:
    """Return a table of estimates of any kind."""
    return table(
        label,
        caption,
        ["Analysis", "Estimate", "Value [interval]", "Unit", "Speaks about"],
        [[text(e.analysis), text(e.key), _interval(e), _field(e, "unit"), _field(e, "target")] for e in rows],
        [20, 26, 26, 14, 14],
    )


def data(results: Results) -> str:
    """Return the identity of the data: source, content hash, n at every level."""
    items = [
        f"**Content hash:** {short(results, 'data.content_hash')} (in full in @sec-hashes)",
        f"**Source:** {ds(results, 'data.path')}",
    ]
    if n := results.under("data.n"):
        items.append("**n:** " + ", ".join(f"{span(v)} {text(v.key.rsplit('.', 1)[1])}" for v in n))
    return bullets(items)


def models(results: Results) -> str:
    """Return the tables of models and of their factors."""
    if not results.models:
        return "The results record no models."
    rows = [
        [text(m), *(_model(results, m, k) for k in _IDENTITY), short(results, f"model.{m}.weights_sha256", 8)]
        for m in results.models
    ]
    blocks = [
        table(
            "tbl-models",
            "Models. Hashes are shortened; they stand in full in @sec-hashes.",
            ["Model", "Revision", "Architecture", "Family", "Parameters", "Vocabulary", "dtype", "Weights"],
            rows,
            [19, 11, 19, 10, 11, 11, 8, 11],
            align="llllrrll",
        )
    ]
    if factors := _factors(results):
        blocks.append(
            table(
                "tbl-factors",
                "Factors of the models, as the panel names them.",
                ["Model", *map(text, factors)],
                [[text(m), *(ds(results, f"model.{m}.{f}") for f in factors)] for m in results.models],
                [24, *[max(6, 76 // len(factors))] * len(factors)],
            )
        )
    if "panel.note" in results:
        blocks.append(callout("note", "On this panel", ds(results, "panel.note")))
    return "\n\n".join(blocks)


def definitions(results: Results) -> str:
    """Return the table of every definition with its origin."""
    ids = list(
        dict.fromkeys(
            v.key.removeprefix("definition.").rpartition(".")[0] for v in results.under("definition")
        )
    )
    if not ids:
        return "The results record no definitions."
    rows = [
        [
            text(i),
            *(
                ds(results, f"definition.{i}.{k}")
                for k in ("long_name", "origin", "formula", "options", "reference")
            ),
        ]
        for i in ids
    ]
    return table(
        "tbl-definitions",
        "Every definition used, with its origin: published, or chosen by dynstat.",
        ["Definition", "Name", "Origin", "Formula", "Options", "Source"],
        rows,
        [13, 15, 9, 23, 13, 27],
    )


def methods(results: Results) -> str:
    """Return the methods as executed, one row for each interval procedure, and the diagnostics."""
    seen: dict[tuple[str, ...], list[EstimateRow]] = {}
    for e in results.estimates:
        value = e.fields.get("value")
        marks = tuple(_plain(e, k) for k in ("level", "interval", "unit", "target", "seed"))
        seen.setdefault((e.analysis, value.method if value else "", *marks), []).append(e)
    if not seen:
        return "\n\n".join(["The results hold no estimates.", *warnings(results)])
    rows = []
    for (analysis, method, *_), group in seen.items():
        first = group[0]
        counts = ", ".join(
            f"{span(v)} {text(counted(k[2:]))}" for k, v in first.fields.items() if k.startswith("n.")
        )
        rows.append(
            [
                text(analysis),
                text(method),
                ", ".join(text(e.key) for e in group),
                _field(first, "interval"),
                _field(first, "unit"),
                counts or MISSING,
                _field(first, "seed"),
            ]
        )
    blocks = [
        table(
            "tbl-methods",
            "Methods as executed: how each interval was made, on how many of what, with which seed.",
            ["Analysis", "Method", "Estimates", "Interval", "Unit", "n", "Seed"],
            rows,
            [9, 14, 22, 19, 8, 19, 9],
        )
    ]
    blocks += warnings(results)
    found = [
        [
            text(e.analysis),
            text(e.key),
            ", ".join(f"{text(k.partition('.')[2])}{NBSP}{span(v)}" for k, v in given),
        ]
        for e in results.estimates
        if (given := [(k, v) for k, v in e.fields.items() if k.startswith(("diagnostics.", "null."))])
    ]
    if found:
        blocks.append(
            table(
                "tbl-diagnostics",
                "Diagnostics of the estimates.",
                ["Analysis", "Estimate", "Diagnostics"],
                found,
                [16, 24, 60],
            )
        )
    return "\n\n".join(blocks)


def warnings(results: Results) -> list[str]:
    """Return what the methods warned of (a singular fit, few levels): a callout, or a sentence."""
    given = [span(v) for v in results.under("warning")]
    if not given:
        return ["No method gave a warning."]
    return [callout("note", "Warnings of the methods", bullets(given))]


def exploratory(results: Results) -> str:
    """Return the exploratory estimates of a registered run: no decisions, no p-values."""
    rows = [e for e in results.estimates if e.purpose == "exploratory"]
    body = "No estimate outside the plan was made."
    if results.exploratory:
        body = "The whole run is exploratory: every estimate above is one, and none has a decision."
    elif rows:
        body = (
            "Estimates outside the registered hypotheses. They have no decision and stand in no family.\n\n"
            + estimates("tbl-exploratory", "Exploratory estimates.", rows)
        )
    return callout("note", "No decisions here", body)


def environment(results: Results) -> str:
    """Return the commands, seeds and versions that reproduce the report."""
    commands = [span(v) for v in results.under("reproduce")]
    versions = [f"{text(v.key.removeprefix('environment.'))} {span(v)}" for v in results.under("environment")]
    seeds = sorted({s for e in results.estimates if (s := _plain(e, "seed"))}, key=lambda s: (len(s), s))
    blocks = []
    if commands:
        blocks.append(
            ":::: {.ds-commands}\n\n" + "\n".join(f"{i}. {c}" for i, c in enumerate(commands, 1)) + "\n\n::::"
        )
    items = [f"**Plan:** {short(results, 'plan.sha256')}; **lock:** {short(results, 'lock.sha256')}"]
    if seeds:
        items.append(f"**Seeds:** {', '.join(map(text, seeds))} (by method in @tbl-methods)")
    if versions:
        items.append("**Versions:** " + ", ".join(versions))
    if "lock.dynstat_version" in results:
        items.append(f"**dynstat at the lock:** {ds(results, 'lock.dynstat_version')}")
    items.append(
        "Every number of this report carries its key in `results.json`; `dynstat report check` compares them."
    )
    return "\n\n".join([*blocks, bullets(items)])


def hashes(results: Results) -> str:
    """Return all hashes in full."""
    rows = [
        [text(name), ds(results, key)]
        for name, key in (
            ("plan", "plan.sha256"),
            ("lock", "lock.sha256"),
            ("commit of the lock", "lock.commit"),
            ("data, content hash", "data.content_hash"),
        )
        if results.raw(key)
    ]
    for m in results.models:
        for field in ("revision", *_HASHES):
            if results.raw(f"model.{m}.{field}"):
                rows.append(
                    [f"{text(m)}: {field.removesuffix('_sha256')}", ds(results, f"model.{m}.{field}")]
                )
    if not rows:
        return "The results record no hashes."
    return table("tbl-hashes", "Hashes and revisions in full (SHA-256).", ["What", "Value"], rows, [35, 65])


def _model(results: Results, model: str, field: str) -> str:
    return (
        short(results, f"model.{model}.{field}")
        if field == "revision"
        else ds(results, f"model.{model}.{field}")
    )


def _factors(results: Results) -> list[str]:
    found: list[str] = []
    for v in results:
        model = v.groups.get("model")
        start = f"model.{model}."
        if model is not None and v.key.startswith(start):
            name = v.key[len(start) :]
            if name not in (*_IDENTITY, *_HASHES) and name not in found:
                found.append(name)
    return found


def _interval(row: EstimateRow | None) -> str:
    return interval(*(row.fields.get(k) for k in ("value", "low", "high"))) if row else MISSING


def _value(row: EstimateRow | None) -> str:
    return span(row.fields.get("value")) if row else MISSING


def _field(row: EstimateRow, name: str) -> str:
    value = row.fields.get(name)
    return span(value) if value and value.raw is not None else MISSING


def _plain(row: EstimateRow, name: str) -> str:
    value = row.fields.get(name)
    return value.formatted if value and value.raw is not None else ""
