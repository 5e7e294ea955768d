"""`report check`: is a report whole, does everything resolve, and is every number that of results.json?"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from dynstat.errors import DynstatError
from dynstat.escape import unescape_markdown
from dynstat.files import read_text
from dynstat.strictyaml import parse_yaml

from . import page, recheck, rerun
from .results import Results, load
from .tables import REQUIRED_TABLES
from .words import FORBIDDEN

# Quarto accepts an unknown key silently, so the keys are listed here.
_KEYS: dict[str, Any] = {
    "title": str,
    "subtitle": str,
    "date": str,
    "lang": str,
    "engine": "markdown",
    "number-sections": bool,
    "format": {
        "html": {
            "toc": bool,
            "embed-resources": True,
            "html-math-method": "mathml",
            "theme": "default",
            "include-in-header": list,
        },
        "typst": {"toc": bool},
    },
}
_NEEDED = ("title", "lang", "engine", "format")
_SPAN = re.compile(r'\[((?:\\.|[^\[\]\\])*)\]\{\.(ds|ds-short) key="((?:\\.|[^"\\])*)"\}')
_REFERENCE = re.compile(r"(?<![\\\w])@((?:tbl|fig|sec|eq|imp|wrn|nte)-[A-Za-z0-9-]+)")
_LINK = re.compile(r"(?<!\\)\]\(#([A-Za-z0-9-]+)\)")
_LABEL = re.compile(r"(?<!\\)\{#([A-Za-z0-9-]+)[ }]")
_FILE_LINK = re.compile(r"(?<![\\!])\[(?:\\.|[^\[\]\\])*\]\(([^)#\s][^)\s]*)\)")
_FIGURE = re.compile(r'!\[((?:\\.|[^\[\]\\])*)\]\(([^)\s]+)\)(\{(?:\\.|"(?:\\.|[^"\\])*"|[^}"\\])*\})?')
_ALT = re.compile(r'fig-alt="((?:\\.|[^"\\])*)"')


def check(target: Path, data: Path | None = None, tolerance: float = rerun.TOLERANCE) -> list[str]:
    """Check a report; see :func:`dynstat.reports.check`."""
    files = [target]
    if target.is_dir():
        files = [p for p in (target / "report.qmd", target / "report.html") if p.exists()] or [
            target / "report.qmd"
        ]
    problems: list[str] = []
    done = []
    for file in files:
        text = read_text(file)
        results = load(file.parent)
        if file == files[0]:
            problems += recheck.origin(file.parent, results)
            problems += recheck.deviations(results) + recheck.wording(results)
        if file.suffix.lower() in {".html", ".htm"}:
            found, count = page.problems(text, results)
        else:
            found, count = document(text, results, file.parent)
        problems += [f"{file.name}: {p}" for p in found]
        done.append(f"{file.name}: {count} traced values agree with results.json")
    if data is not None:
        found, line = rerun.recompute(files[0].parent, data, tolerance)
        problems += found
        done.append(line)
    if problems:
        worst = [p for p in problems if "DECISION MISMATCH" in p]
        raise DynstatError(
            "R501",
            f"{len(problems)} problem{'s' * (len(problems) > 1)} in the report"
            + (f", {len(worst)} of them a decision that does not follow" if worst else ""),
            where=str(target),
            problems=worst + [p for p in problems if p not in worst],
            mend="build it anew with `dynstat report build`; a wrong results.json with `dynstat run`",
        )
    return done


def document(text: str, results: Results, folder: Path) -> tuple[list[str], int]:
    """Return the problems of a .qmd and the number of values that were compared."""
    front, body, offset = _split(text)
    shown = [
        recheck.Shown(
            unescape_markdown(m[3]),
            unescape_markdown(m[1]),
            m[2] == "ds-short",
            f"line {_line(text, m, offset)}",
        )
        for m in _SPAN.finditer(body)
    ]
    found = [
        *recheck.decisions(results),
        *recheck.numbers(results, shown),
        *_front_matter(front),
        *_labels(body),
        *_figures(body, folder),
        *_balance(body),
        *_shortcodes(text),
        *_tables(body),
        *_forbidden(body),
    ]
    if not shown:
        found.append("no traced value was found")
    if results.exploratory and "callout-warning" not in body:
        found.append("the run is exploratory and the report has no banner that says so")
    return found, len(shown)


def cells(row: str) -> int:
    """Return the number of cells of a pipe-table row; escaped pipes do not count.

    Examples
    --------
    >>> cells("| a | b \\\\| c |")
    2
    """
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", row.strip())) - 1


def _split(text: str) -> tuple[str | None, str, int]:
    match = re.match(r"---\n(.*?\n)---\n", text, re.S)
    if not match:
        return None, text, 0
    return match[1], text[match.end() :], match.end()


def _line(text: str, match: re.Match[str], offset: int) -> int:
    return text.count("\n", 0, offset + match.start()) + 1


def _front_matter(front: str | None) -> list[str]:
    if front is None:
        return ["front matter is missing"]
    try:
        found = parse_yaml(front, "front matter")
    except DynstatError as e:
        return [f"front matter: {e.what} at {e.where}"]
    if not isinstance(found, dict):
        return ["front matter is not a mapping"]
    missing = [f"front matter: {key} is missing" for key in _NEEDED if key not in found]
    return missing + _compare(found, _KEYS, "")


def _compare(found: dict[str, Any], allowed: dict[str, Any], path: str) -> list[str]:
    problems = []
    for key, value in found.items():
        at = f"{path}{key}"
        if key not in allowed:
            problems.append(f"front matter: unknown key {at!r}")
        elif isinstance(want := allowed[key], dict):
            if isinstance(value, dict):
                problems += _compare(value, want, f"{at}.")
            else:
                problems.append(f"front matter: {at} must be a mapping")
        elif isinstance(want, type):
            if not isinstance(value, want):
                problems.append(f"front matter: {at} must be {want.__name__}, found {value!r}")
        elif value != want:
            problems.append(f"front matter: {at} must be {want!r}, found {value!r}")
    return problems


def _labels(body: str) -> list[str]:
    labels = Counter(_LABEL.findall(body))
    problems = [f"label {name!r} stands {n} times" for name, n in labels.items() if n > 1]
    wanted = [*_REFERENCE.findall(body), *_LINK.findall(body)]
    problems += [
        f"reference to {name!r} resolves to no label" for name in dict.fromkeys(wanted) if name not in labels
    ]
    problems += [f"table {name!r} is missing" for name in REQUIRED_TABLES if name not in labels]
    return problems


def _figures(body: str, folder: Path) -> list[str]:
    problems = []
    for link in _FILE_LINK.findall(body):
        if re.match(r"[a-z]+:", link):
            problems.append(f"link to {link} leaves the report")
        elif not (folder / link).is_file():
            problems.append(f"linked file {link} does not exist")
    for _, source, attributes in _FIGURE.findall(body):
        if re.match(r"[a-z]+:", source):
            problems.append(f"figure {source} is not a file of the report")
        elif not (folder / source).is_file():
            problems.append(f"figure {source} does not exist")
        alt = _ALT.search(attributes)
        if not (alt and alt[1].strip()):
            problems.append(f"figure {source} has no alt text")
    return problems


def _balance(body: str) -> list[str]:
    problems: list[str] = []
    depth, fence = 0, ""
    for line in body.splitlines():
        if mark := re.match(r"(`{3,}|~{3,})", line):
            if not fence:
                fence = mark[1]
            elif mark[1][0] == fence[0] and len(mark[1]) >= len(fence) and line.strip() == mark[1]:
                fence = ""
        elif not fence and re.match(r":{3,}\s*[^:\s]", line):
            depth += 1
        elif not fence and re.fullmatch(r":{3,}\s*", line):
            depth -= 1
            if depth < 0:
                problems.append("a div is closed that was not opened")
                depth = 0
    if depth:
        problems.append(f"{depth} div{'s' * (depth > 1)} not closed")
    if fence:
        problems.append("a code fence is not closed")
    return problems


def _shortcodes(text: str) -> list[str]:
    # Quarto expands them everywhere, in code and front matter too.
    return [
        f"line {text.count(chr(10), 0, m.start()) + 1}: shortcode {{{{<" for m in re.finditer(r"\{\{<", text)
    ]


def _tables(body: str) -> list[str]:
    problems, lines = [], body.splitlines()
    for i, line in enumerate(lines):
        if not re.fullmatch(r"\|(?::?-{3,}:?\|)+", line) or i == 0:
            continue
        width = cells(lines[i - 1])
        block = [lines[i]]
        for row in lines[i + 1 :]:
            if not row.startswith("|"):
                break
            block.append(row)
        for row in block:
            if cells(row) != width:
                problems.append(f"table row has {cells(row)} cells, its header {width}: {row[:60]}")
    return problems


def _forbidden(body: str) -> list[str]:
    # Words inside traced values are quoted from the plan or the data, and so are alt texts made of them.
    own = _ALT.sub("", _SPAN.sub("", body))
    return [
        f"forbidden word {m[0]!r}: say supported, rejected or inconclusive" for m in FORBIDDEN.finditer(own)
    ]
