"""Escaped text must come back from Pandoc as itself: one word run, no markup, no loss."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat.escape import escape_markdown, unescape_markdown, visible

from .hostile import HOSTILE
from .pandoc import ast, cells, plain, walk

# Quarto and R Markdown switch these on; bare addresses must stay text there too.
READERS = [
    "markdown",
    "markdown+autolink_bare_uris+emoji+mark",
    "markdown+hard_line_breaks+lists_without_preceding_blankline",
]


def _seen(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\u2068", "").replace("\u2069", "")


@pytest.mark.parametrize("reader", READERS)
def test_hostile_strings_come_back_as_text_in_every_context(reader: str) -> None:
    inline = [f"x{escape_markdown(t)}x" for t in HOSTILE]
    start = [escape_markdown(t) for t in HOSTILE]
    blocks = ast("\n\n".join([*inline, *start]), reader)["blocks"]
    assert [b["t"] for b in blocks] == ["Para"] * (2 * len(HOSTILE))
    got = [_seen(plain(b["c"])) for b in blocks]
    shown = [_seen(visible(t)) for t in HOSTILE]
    assert got[: len(HOSTILE)] == [f"x{t}x" for t in shown]
    assert got[len(HOSTILE) :] == shown


def test_hostile_strings_stay_in_their_table_cell_span_and_attribute() -> None:
    rows = "".join(f'| [{escape_markdown(t)}]{{.ds key="k{escape_markdown(t)}"}} | y |\n' for t in HOSTILE)
    blocks = ast(f"| a | b |\n|---|---|\n{rows}")["blocks"]
    assert len(blocks) == 1
    table = cells(blocks[0])[1:]
    assert [_seen(row[0]) for row in table] == [_seen(visible(t)) for t in HOSTILE]
    assert {row[1] for row in table} == {"y"}
    keys = [dict(span["c"][0][2])["key"] for span in walk(blocks, "Span")]
    assert [_seen(k) for k in keys] == ["k" + _seen(visible(t)) for t in HOSTILE]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec=None), max_size=12)
        | st.text("\\`*_{}[]()<>#+-.!|~^$@:\"'% \n\ta1", max_size=14),
        min_size=20,
        max_size=40,
    )
)
def test_any_text_comes_back_from_pandoc(texts: list[str]) -> None:
    blocks = ast("\n\n".join(f"x{escape_markdown(t)}x" for t in texts))["blocks"]
    assert [_seen(plain(b["c"])) if b["t"] == "Para" else b["t"] for b in blocks] == [
        f"x{_seen(visible(t))}x" for t in texts
    ]


@given(st.text())
def test_unescaping_inverts(text: str) -> None:
    source = escape_markdown(text)
    assert unescape_markdown(source) == visible(text).replace("\u00a0", " ")
    assert len(source.splitlines()) <= 1


def test_shortcodes_cannot_be_spelled() -> None:
    for text in HOSTILE:
        assert "{{<" not in escape_markdown(text)


def test_open_overrides_cannot_turn_round_what_follows() -> None:
    source = escape_markdown("\u202e.70")
    assert "\u202e" not in source and "202E" in source
    assert escape_markdown("שלום").startswith("\u2068") and escape_markdown("שלום").endswith("\u2069")
