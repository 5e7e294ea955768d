"""The one escaping function: text from outside, made harmless for Markdown, Pandoc and Quarto."""

from __future__ import annotations

import re
import unicodedata

_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
# Embeddings, overrides and isolates: left open they turn round the text and numbers that follow.
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_ISOLATE, _POP = "\u2068", "\u2069"


def visible(text: str) -> str:
    """Return `text` on one line, with every character that could act unseen made visible.

    Line breaks fold to one space (CRLF is one break; a break at the end vanishes), other control characters
    become their picture (NUL becomes U+2400), lone surrogates U+FFFD, and bidirectional embeddings,
    overrides and isolates their code point in words, ``⟨U+202E⟩``.

    Examples
    --------
    >>> visible("a\\r\\nb\\x00")
    'a b␀'
    """
    return "".join(_picture(char) for char in " ".join(text.splitlines()))


def _picture(char: str) -> str:
    if char == "\t":
        return " "
    if ord(char) < 32:
        return chr(0x2400 + ord(char))
    if ord(char) == 127:
        return "\u2421"
    if char in _BIDI_CONTROLS:
        return f"\u27e8U+{ord(char):04X}\u27e9"
    if unicodedata.category(char) in {"Cc", "Cs"}:
        return "\ufffd"
    return char


def escape_markdown(text: str) -> str:
    """Return `text` so that it renders as itself and as nothing else, on one line.

    The text passes through :func:`visible`; then every ASCII punctuation character gets a backslash, which
    also breaks Quarto's shortcodes (these are expanded even inside code) and smart typography, and spaces
    at the ends or in runs become no-break spaces so that none is lost. Text that holds right-to-left
    letters is wrapped in an isolate (U+2068 ... U+2069), so that numbers beside it keep their order.

    Parameters
    ----------
    text : str
        Any text: prompts, model output, labels from users' files.

    Returns
    -------
    str
        Markdown source; inside a quoted Pandoc attribute it must follow a visible character (Pandoc takes a
        quote before a space for text). Never put it into a code span or fence.

    Examples
    --------
    >>> escape_markdown("a | *b*")
    'a \\\\| \\\\*b\\\\*'
    """
    shown = visible(text)
    escaped = "".join("\\" + char if char in _PUNCTUATION else char for char in shown)
    escaped = re.sub(r"^ +| +$|(?<= ) +", lambda run: "\u00a0" * len(run.group()), escaped)
    if any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in shown):
        return f"{_ISOLATE}{escaped}{_POP}"
    return escaped


def unescape_markdown(source: str) -> str:
    """Return the text that :func:`escape_markdown` made `source` from, as :func:`visible` shows it.

    Examples
    --------
    >>> unescape_markdown(escape_markdown(" a | *b*"))
    ' a | *b*'
    """
    plain = re.sub(r"\\(.)", r"\1", source).replace("\u00a0", " ")
    if plain.startswith(_ISOLATE) and plain.endswith(_POP):
        plain = plain[1:-1]
    return plain
