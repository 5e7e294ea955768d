"""What differs between plan and run: deviations, amended results beside registered ones, failures."""

from __future__ import annotations

from .markup import MISSING, bullets, callout, ds, interval, span, table, text
from .results import Results, Value

_MORE = (
    ("id", "Declared as"),
    ("reason", "Reason"),
    ("severity", "What it does to the severity of the test"),
    ("validity", "What it does to validity"),
    ("timing", "When, and what was known of the data"),
    ("consequence", "Consequence"),
    ("registered_also", "Registered result also reported"),
)


def warning(results: Results) -> str:
    """Return the banner of deviations that nobody declared, or nothing."""
    if not results.undeclared:
        return ""
    return callout(
        "warning",
        "Undeclared deviations",
        f"{ds(results, 'derived.count.undeclared')} deviations from the plan were found and not declared: "
        f"{', '.join(map(text, results.undeclared))} (@tbl-deviations). `dynstat report check` fails until "
        "each is declared with its reason, or undone.",
    )


def summary(results: Results) -> str:
    """Return the line of the verdict box."""
    line = f"**Deviations:** {ds(results, 'derived.count.deviations')} (@tbl-deviations)"
    records = results.records("deviation")
    if any("declared" in fields for fields in records.values()):
        line += f": {ds(results, 'derived.count.declared')} declared"
        undeclared = ds(results, "derived.count.undeclared")
        line += f", **{undeclared} undeclared**" if results.undeclared else f", {undeclared} undeclared"
    return line


def log(results: Results) -> str:
    """Return the log of deviations and what each means; it says 0 where there are none."""
    records = results.records("deviation")
    told = any(k in fields for fields in records.values() for k in ("declared", "detected"))
    header = ["ID", "Field", "Registered", "Executed", "Class"]
    header += ["Found", "Claims"] if told else ["Reason"]
    rows = []
    for i, fields in records.items():
        cells = [span(fields.get(k)) for k in ("field", "registered", "executed", "type")]
        cells += [_found(fields), _claims(fields)] if told else [span(fields.get("reason"))]
        rows.append([_anchor(i) if told else text(i), *cells])
    empty = [ds(results, "derived.count.deviations"), "0 deviations were found."]
    blocks = [
        table(
            "tbl-deviations",
            "Deviations: differences between what was locked and what ran.",
            header,
            rows or [[*empty, *[""] * (len(header) - 2)]],
            [6, 22, 20, 20, 11, 11, 10] if told else [6, 24, 18, 18, 12, 22],
        )
    ]
    if told:
        blocks += _all_details(records)
    return "\n\n".join(b for b in blocks if b)


def amended(results: Results) -> str:
    """Return registered and amended results side by side, or nothing."""
    rows = []
    pairs = [
        (h, start)
        for h in results.hypotheses
        for start in (
            f"amended.{h}",
            *(f"amended.{h}.{k}" for k in results.records(f"amended.{h}") if k.isdigit()),
        )
        if f"{start}.decides" in results
    ]
    for h, start in pairs:
        changed = [ds(results, f"{start}.{k}", missing="") for k in ("pointers", "reason", "timing")]
        rows.append(
            [
                text(h),
                _result(results, f"{start}.registered"),
                _result(results, start),
                ds(results, f"{start}.decides"),
                "; ".join(p for p in changed if p) or MISSING,
            ]
        )
    if not rows:
        return ""
    return table(
        "tbl-amended",
        "Registered and amended results side by side, and which of them decides.",
        ["ID", "As registered", "As amended", "Decides", "What was changed, why, and what was known then"],
        rows,
        [6, 26, 26, 12, 30],
    )


def failures(results: Results) -> str:
    """Return runs and analyses that failed, or nothing."""
    found = [span(v) for v in results.under("failure") if v.formatted and v.key != "failure.n"]
    if not found:
        return ""
    return "Runs and analyses that failed:\n\n" + bullets(found)


def _result(results: Results, start: str) -> str:
    if not any(f"{start}.{k}" in results for k in ("estimate", "decision")):
        return MISSING
    parts = [interval(*(results.get(f"{start}.{k}") for k in ("estimate", "low", "high")))]
    if results.raw(f"{start}.decision"):
        parts.append(ds(results, f"{start}.decision"))
    if results.raw(f"{start}.reason_code"):
        parts.append(ds(results, f"{start}.reason_code"))
    return "; ".join(parts)


def _found(fields: dict[str, Value]) -> str:
    parts = [span(fields.get("detected"), missing="")]
    declared = fields.get("declared")
    known = "detected" in fields and fields["detected"].raw == "declared"
    if declared is not None and declared.raw is not None and not known:
        kind = fields.get("type")
        note = kind is not None and kind.raw == "note"
        parts.append("declared" if declared.raw is True else "" if note else "**not declared**")
    return ", ".join(dict.fromkeys(p for p in parts if p)) or MISSING


def _claims(fields: dict[str, Value]) -> str:
    affects = next((str(v.groups["affects"]) for v in fields.values() if v.groups.get("affects")), "")
    return text(affects) if affects else "none"


def _anchor(i: str) -> str:
    return f"[{text(i)}]{{#{anchor(i)}}}"


def anchor(i: str) -> str:
    """Return the label of a deviation."""
    return "dev-" + "".join(c if c.isascii() and c.isalnum() else "-" for c in i.lower())


def _all_details(records: dict[str, dict[str, Value]]) -> list[str]:
    """Return what each deviation means; those of which the same is said stand together."""
    alike: dict[tuple[object, ...], list[str]] = {}
    for i, fields in records.items():
        own = {"field", "registered", "executed"}
        alike.setdefault(tuple((k, v.formatted) for k, v in fields.items() if k not in own), []).append(i)
    out = []
    for same in alike.values():
        first, *others = same
        details = _details(first, records[first])
        if others and details:
            links = ", ".join(f"[{text(i)}](#{anchor(i)})" for i in others)
            details = details.replace("\n\n", f" and the same for {links}:\n\n", 1).replace(
                ": and", " and", 1
            )
        out.append(details)
    return out


def _details(i: str, fields: dict[str, Value]) -> str:
    lines = [f"**{name}:** {span(fields[k])}" for k, name in _MORE if k in fields and fields[k].formatted]
    known = {*dict(_MORE), "field", "registered", "executed", "type", "detected", "declared"}
    lines += [f"**{text(k)}:** {span(v)}" for k, v in fields.items() if k not in known and v.formatted]
    return f"[{text(i)}](#{anchor(i)}), {span(fields.get('field'))}:\n\n{bullets(lines)}" if lines else ""
