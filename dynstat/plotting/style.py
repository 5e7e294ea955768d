"""The figure style: colours, markers, sizes, and the one way to save an SVG."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.figure import Figure

from ..errors import DynstatError
from ..files import write_atomic

# Okabe and Ito (2008), told apart under the common colour-vision deficiencies.
OKABE_ITO = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}
GREY, BAND = "#595959", "#DDDDDD"
WIDTH = 6.5  # inches, the text column of a report


class Mark(NamedTuple):
    """How a decision is drawn and written: never by colour alone."""

    colour: str
    marker: str
    glyph: str


DECISIONS = {
    "supported": Mark(OKABE_ITO["blue"], "o", "✓"),
    "rejected": Mark(OKABE_ITO["vermillion"], "X", "✗"),
    "inconclusive": Mark(OKABE_ITO["black"], "D", "○"),
    "not_testable": Mark(GREY, "s", "–"),
    "inadmissible": Mark(GREY, "v", "–"),
    "not_run": Mark(GREY, "^", "–"),
}
NO_DECISION = Mark(OKABE_ITO["black"], "o", "")

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so layout is the same everywhere
    "text.parse_math": False,  # a model id may hold a dollar sign
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 9.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "svg.hashsalt": "dynstat",
    "svg.fonttype": "none",
    "path.simplify": False,
}


# What no XML file may hold, escaped or not: a label from outside could bring it.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@contextmanager
def style() -> Iterator[None]:
    """Draw inside the house style, whatever the user's own matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of `width` × `height` inches that pyplot does not know of."""
    return Figure(figsize=(width, height), layout="constrained")


def number(value: float, *, digits: int = 2, leading_zero: bool = False) -> str:
    """Return a number as a report prints it; shares and correlations lose the zero before the point.

    Examples
    --------
    >>> number(0.07), number(-0.5), number(1.0), number(0.07, leading_zero=True)
    ('.07', '−.50', '1.00', '0.07')
    """
    text = f"{abs(value):.{digits}f}"
    if not leading_zero and text.startswith("0."):
        text = text[1:]
    return ("−" if value < 0 and float(f"{value:.{digits}f}") != 0 else "") + text


def shorten(name: str, length: int = 30) -> str:
    """Return `name` cut in its middle to at most `length` characters, so that a long id leaves room to draw.

    Examples
    --------
    >>> shorten("gpt2-curated-s0"), shorten("organisation/model-with-a-long-name-135M", 20)
    ('gpt2-curated-s0', 'organisati…name-135M')
    """
    half = (length - 1) // 2
    return name if len(name) <= length else f"{name[: length - 1 - half]}…{name[-half:]}"


def save_svg(fig: Figure, path: str | os.PathLike[str], alt: str, *, title: str = "") -> Path:
    """Save a figure as SVG with its alt text inside: same figure, same bytes.

    Parameters
    ----------
    fig : Figure
    path : path
        Written whole or not at all.
    alt : str
        What the figure shows, in words and numbers, for who cannot see it. Becomes ``<desc>``.
    title : str
        A short name; becomes ``<title>``. Default: the first sentence of `alt`.

    Raises
    ------
    DynstatError
        S404 where `alt` is empty; F002 where the file cannot be written.
    """
    words = " ".join(alt.split())
    if not words:
        raise DynstatError(
            "S404",
            "a figure needs alt text",
            where=str(path),
            found=repr(alt),
            mend="say in words and numbers what the figure shows",
        )
    buffer = io.BytesIO()
    with style(), warnings.catch_warnings():
        # Text stays text, and readers have fonts of their own.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from font")
        # The date and the creator's version would change the bytes without changing the figure.
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # Readers without that font get the one nearest in width.
    svg = (
        buffer.getvalue()
        .decode("utf-8")
        .replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, Arial, sans-serif")
    )
    name = " ".join(title.split()) or re.split(r"(?<=[.:])\s", words)[0].rstrip(".:")
    head = f'<title id="dynstat-title">{_xml(name)}</title>\n <desc id="dynstat-desc">{_xml(words)}</desc>\n '
    svg = re.sub(
        r"(<svg\b[^>]*)>",
        lambda m: f'{m[1]} role="img" aria-labelledby="dynstat-title dynstat-desc">\n {head}',
        svg,
        count=1,
    )
    svg = _NOT_XML.sub("\ufffd", svg)
    return write_atomic(path, re.sub(r"[ \t]+$", "", svg, flags=re.M))


def _xml(text: str) -> str:
    # XML has no form for most control characters, escaped or not.
    return escape("".join(c for c in text if c.isprintable()))
