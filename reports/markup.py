"""The few forms of Quarto Markdown that a report is made of; text from outside enters only through these."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from dynstat.escape import escape_markdown

from .results import EstimateRow, Results, Value

NBSP = "\u00a0"
MISSING = "—"
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.:/@+-]+")


def text(words: object) -> str:
    """Escape text that did not come from dynstat."""
    return escape_markdown(str(words))


def span(value: Value | None, *, missing: str = MISSING) -> str:
    """Return a value as a span that carries its key, so that every number can be traced and checked."""
    if value is None or not value.formatted:
        return missing
    return f"[{text(value.formatted)}]{{.ds key={_key(value.key)}}}"


def ds(results: Results, key: str, *, missing: str = MISSING) -> str:
    """Return the span of `key`, or `missing`."""
    return span(results.get(key), missing=missing)


def field(row: EstimateRow, name: str) -> str:
    """Return the span of a field of an estimate, or the sign for what is missing."""
    value = row.fields.get(name)
    return span(value) if value and value.raw is not None else MISSING


def short(results: Results, key: str, length: int = 12) -> str:
    """Return the beginning of a long value (a hash), as a span that says so."""
    value = results.get(key)
    if value is None or not value.formatted:
        return MISSING
    if len(value.formatted) <= length:
        return span(value)
    return f"[{text(value.formatted[:length])}]{{.ds-short key={_key(value.key)}}}…"


def interval(value: Value | None, low: Value | None, high: Value | None) -> str:
    """Return ``estimate [low, high]`` with no-break spaces inside."""
    if value is None:
        return MISSING
    if low is None or high is None or low.raw is None or high.raw is None:
        return span(value)
    return f"{span(value)}{NBSP}\\[{span(low)},{NBSP}{span(high)}\\]"


def table(
    label: str,
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    *,
    align: str = "",
) -> str:
    """Return a pipe table with its caption and label.

    Parameters
    ----------
    label : str
        ``tbl-...``, letters, digits and hyphens; "" for a table without a number.
    header, rows : sequence of str
        Markdown; every row has the header's number of cells.
    widths : sequence of int
        Relative widths of the columns.
    align : str
        A letter a column, ``l`` or ``r``; default all ``l``.
    """
    align = align or "l" * len(header)
    if not len(header) == len(widths) == len(align) or any(len(row) != len(header) for row in rows):
        raise ValueError(f"table {label}: rows, widths and header differ in length")
    total = sum(widths)
    percent = [max(1, round(100 * w / total)) for w in widths]
    rule = [("-" * max(3, p)) + (":" if a == "r" else "") for p, a in zip(percent, align, strict=True)]
    lines = [_line(header), "|" + "|".join(rule) + "|", *map(_line, rows)]
    if label:
        lines += ["", f': {caption} {{#{label} tbl-colwidths="[{",".join(map(str, percent))}]"}}']
    return "\n".join(lines)


def callout(kind: str, title: str, body: str, *, closed: bool = False) -> str:
    """Return a callout: ``important``, ``warning`` or ``note``; a closed one opens at a click on a page."""
    collapse = ' collapse="true"' if closed else ""
    head = f"::: {{.callout-{kind} icon=false{collapse}}}"
    return f"{head}\n\n## {title} {{.unnumbered .unlisted}}\n\n{body}\n\n:::"


def div(classes: str, body: str) -> str:
    """Return `body` in a fenced div with these classes."""
    return f"::: {{{classes}}}\n\n{body}\n\n:::"


def bullets(items: Sequence[str]) -> str:
    """Return a list."""
    return "\n".join(f"- {item}" for item in items)


def slug(name: str, taken: Mapping[str, str] | None = None) -> str:
    """Return `name` as part of a label: lower-case letters, digits, hyphens; unique among `taken`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "x"
    used = set((taken or {}).values())
    out, n = base, 2
    while out in used:
        out, n = f"{base}-{n}", n + 1
    return out


def yaml_string(words: str) -> str:
    """Return a double-quoted YAML string in normal form C, with anything unprintable as an escape."""
    out = []
    for char in unicodedata.normalize("NFC", words):
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable() and ord(char) < 0xFFFE:
            out.append(char)
        else:
            out.append(f"\\U{ord(char):08X}")
    return '"' + "".join(out) + '"'


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ") for cell in cells) + " |"


def _key(key: str) -> str:
    return f'"{key}"' if _PLAIN_KEY.fullmatch(key) else f'"{escape_markdown(key)}"'
