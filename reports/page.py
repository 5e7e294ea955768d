"""Checks of a rendered page: traced values, required tables, references, remote resources."""

from __future__ import annotations

from html.parser import HTMLParser

from . import recheck
from .recheck import Shown
from .results import Results
from .tables import REQUIRED_TABLES


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.shown: list[Shown] = []
        self.ids: list[str] = []
        self.unresolved: list[str] = []
        self.remote: list[str] = []
        self.images_without_alt = 0
        self.words: list[str] = []
        # Spans that are open: key, kind and where their words begin; None for a span without a key.
        self._spans: list[tuple[str, str, int] | None] = []
        self._quiet = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {k: v or "" for k, v in attrs}
        if "id" in given:
            self.ids.append(given["id"])
        source = given.get("src", "") or (given.get("href", "") if tag == "link" else "")
        if source.startswith(("http:", "https:", "//")):
            self.remote.append(source)
        if tag == "img" and not given.get("alt", "").strip() and given.get("role") != "presentation":
            self.images_without_alt += 1
        classes = given.get("class", "").split()
        if "quarto-unresolved-ref" in classes:
            self.unresolved.append(given.get("data-key", "") or tag)
        if tag in {"script", "style"}:
            self._quiet += 1
        if tag == "span":
            kind = next((c for c in classes if c in {"ds", "ds-short"}), "")
            traced = kind and "data-key" in given
            self._spans.append((given["data-key"], kind, len(self.words)) if traced else None)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style"}:
            self._quiet -= 1
        if tag == "span" and self._spans and (opened := self._spans.pop()):
            key, kind, start = opened
            self.shown.append(
                Shown(key, "".join(self.words[start:]), kind == "ds-short", f"{self.getpos()[0]}")
            )

    def handle_data(self, data: str) -> None:
        if not self._quiet:
            self.words.append(data)


def problems(text: str, results: Results) -> tuple[list[str], int]:
    """Return the problems of a rendered report and the number of values that were compared."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    shown = [item._replace(where=f"line {item.where}") for item in reader.shown]
    found = [*recheck.decisions(results), *recheck.numbers(results, shown)]
    if not shown:
        found.append("no traced value was found")
    found += [f"table {name!r} is missing" for name in REQUIRED_TABLES if name not in reader.ids]
    if reader.unresolved or "?@" in "".join(reader.words):
        found.append("a reference did not resolve")
    found += [f"remote resource {source}" for source in reader.remote]
    if reader.images_without_alt:
        found.append(f"{reader.images_without_alt} images have no alt text")
    return found, len(shown)
