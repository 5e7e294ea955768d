"""The one escaping function: text from outside, made harmless for Markdown, Pandoc and Quarto."""

from __future__ import annotations

import unicodedata

_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def escape_markdown(text: str) -> str:
    """Return `text` so that it renders as itself and as nothing else, on one line.

    Every ASCII punctuation character gets a backslash, which also breaks Quarto's shortcodes (these are
    expanded even inside code), line breaks fold to one space, other control characters become their
    visible picture, and spaces at the ends or in runs become no-break spaces so that none is lost.

    Parameters
    ----------
    text : str
        Any text: prompts, model output, labels from users' files.

    Returns
    -------
    str
        Markdown source. Never put it into a code span or fence.

    Examples
    --------
    >>> escape_markdown("a | *b*")
    'a \\\\| \\\\*b\\\\*'
    """
    folded = " ".join(text.splitlines())
    out: list[str] = []
    for char in folded:
        if char in _PUNCTUATION:
            out.append("\\" + char)
        elif char == "\t":
            out.append(" ")
        elif ord(char) < 32:
            out.append(chr(0x2400 + ord(char)))
        elif ord(char) == 127:
            out.append("\u2421")
        elif unicodedata.category(char) in {"Cc", "Cs"}:
            out.append("\ufffd")
        else:
            out.append(char)
    escaped = "".join(out)
    stripped = escaped.strip(" ")
    lead = len(escaped) - len(escaped.lstrip(" "))
    tail = len(escaped) - len(escaped.rstrip(" ")) if stripped else 0
    body = stripped
    while "  " in body:
        body = body.replace("  ", " \u00a0", 1)
    return "\u00a0" * lead + body + "\u00a0" * tail
