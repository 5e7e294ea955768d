"""Pandoc as the outside reader of what the report writes."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pypandoc


def ast(markdown: str, reader: str = "markdown") -> dict[str, Any]:
    """Parse `markdown` to Pandoc's JSON tree."""
    run = subprocess.run(
        [pypandoc.get_pandoc_path(), "-f", reader, "-t", "json"],
        input=markdown.encode(),
        capture_output=True,
        check=True,
    )
    return json.loads(run.stdout)


def html(markdown: str) -> str:
    """Render `markdown` to a standalone page."""
    run = subprocess.run(
        [pypandoc.get_pandoc_path(), "-f", "markdown", "-t", "html", "-s", "--metadata", "title=x"],
        input=markdown.encode(),
        capture_output=True,
        check=True,
    )
    return run.stdout.decode()


def plain(inlines: list[dict[str, Any]]) -> str:
    """Return the text of inlines; anything but text, spaces and spans shows up as its type in ‹›."""
    out = []
    for item in inlines:
        kind = item["t"]
        if kind == "Str":
            out.append(item["c"])
        elif kind in {"Space", "SoftBreak"}:
            out.append(" ")
        elif kind in {"Span", "Link"}:
            out.append(plain(item["c"][1]))
        elif kind in {"Strong", "Emph"}:
            out.append(plain(item["c"]))
        else:
            out.append(f"‹{kind}›")
    return "".join(out)


def walk(node: Any, kind: str) -> list[Any]:
    """Return every node of `kind` in document order."""
    if isinstance(node, dict):
        found = [node] if node.get("t") == kind else []
        return found + [x for value in node.values() for x in walk(value, kind)]
    return [x for value in node for x in walk(value, kind)] if isinstance(node, list) else []


def cells(table: dict[str, Any]) -> list[list[str]]:
    """Return the text of a table: the header row, then the body rows."""
    head, bodies = table["c"][3], table["c"][4]
    rows = head[1] + [row for body in bodies for row in body[3]]
    return [[" ".join(plain(block["c"]) for block in cell[4]) for cell in row[1]] for row in rows]
