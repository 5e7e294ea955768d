"""What was measured and with what: data, models, environment, hashes."""

from __future__ import annotations

from .markup import bullets, callout, ds, short, span, table, text
from .results import Results

_IDENTITY = ("revision", "architecture", "family", "parameters", "vocabulary", "dtype")
_HASHES = ("weights_sha256", "tokenizer_sha256")


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


def environment(results: Results) -> str:
    """Return the commands, seeds and versions that reproduce the report."""
    commands = [span(v) for v in results.under("reproduce")]
    versions = [f"{text(v.key.removeprefix('environment.'))} {span(v)}" for v in results.under("environment")]
    seeds = sorted({s for e in results.estimates if (s := e.words("seed"))}, key=lambda s: (len(s), s))
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
            ("lock that it amends", "lock.parent"),
            ("inputs that the lock binds", "lock.inputs_sha256"),
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
