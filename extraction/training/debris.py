"""Make *raw* text: the clean sources mixed with the debris of web text.

A raw text is a row of documents. Each takes the next passage of one source, so that every passage is
used at most twice, and may damage it (broken encoding, shuffled paragraphs), dress it as a web page
(markup, boilerplate), repeat it with small edits (near-duplicates), or follow it with text that was
never prose (log lines, code). All draws come from one generator: the seed determines every byte.
"""

from __future__ import annotations

import html
from collections.abc import Callable

import numpy as np

from dynstat.errors import DynstatError

#: Kinds of debris and the chance of each being applied to a document; one document can carry several.
CHANCES: dict[str, float] = {
    "shuffled_paragraphs": 0.15,
    "near_duplicate": 0.12,
    "broken_encoding": 0.20,
    "markup": 0.35,
    "boilerplate": 0.45,
    "log_lines": 0.20,
    "code": 0.25,
}
#: Seeds of the raw texts made from the training and from the held-out books.
TRAIN_SEED, HELD_OUT_SEED = 1, 2
PASSAGE_CHARACTERS = (600, 2400)

_NAMES = (
    "home",
    "about",
    "news",
    "archive",
    "contact",
    "shop",
    "login",
    "help",
    "search",
    "press",
    "terms",
    "privacy",
    "sitemap",
    "forum",
    "gallery",
    "reviews",
    "events",
    "careers",
    "support",
    "members",
)
_FIELDS = (
    "count",
    "index",
    "total",
    "value",
    "node",
    "item",
    "result",
    "buffer",
    "user",
    "path",
    "cache",
    "token",
    "offset",
    "length",
    "score",
    "key",
    "state",
    "queue",
    "row",
    "limit",
)
_SERVICES = (
    "nginx",
    "sshd",
    "kernel",
    "cron",
    "postfix",
    "app.worker",
    "db.pool",
    "auth",
    "scheduler",
    "api",
)
_NOTICES = (
    "We use cookies to improve your experience. By continuing you accept our cookie policy.",
    "All rights reserved. No part of this site may be reproduced without permission.",
    "Subscribe to our newsletter and never miss an update!",
    "Please enable JavaScript to view the comments on this page.",
    "This page was last modified on {date}.",
    "Share this: Facebook Twitter Email Print",
    "You must be logged in to post a comment.",
    "Copyright (c) {year} {name}.example.com. Powered by {name}Press.",
    "Sign up now for a free trial. No credit card required. Click here to read more...",
    "Related posts: {words} | {words} | {words}",
    "{number} comments | {number} views | posted in {name} by admin",
    "Page {number} of {number}  << previous | next >>",
    "SPECIAL OFFER!!! Save {number}% on {words} today only. Free shipping on all orders.",
    "404 Not Found. The page you requested could not be found on this server.",
    "Tags: {name}, {name}, {name}",
)  # fmt: skip


def raw(texts: dict[str, str], rng: np.random.Generator | int, size: int | None = None) -> str:
    """Mix clean sources with the debris of web text.

    Parameters
    ----------
    texts : dict of str to str
        Clean text of every source; at least one is not empty.
    rng : Generator or int
        Source of every draw, or its seed.
    size : int, optional
        Bytes of UTF-8 after which no further document is added; the size of the clean sources
        together, if not given.

    Returns
    -------
    str
        The documents, a blank line between two.

    Raises
    ------
    DynstatError
        S404 where no source has any text.
    """
    draw = np.random.default_rng(rng)
    passages = _passages(texts, draw)
    if not passages:
        raise DynstatError("S404", "raw text needs at least one source with text in it", found="no text")
    wanted = sum(len(text.encode()) for text in texts.values()) if size is None else size
    documents: list[str] = []
    made = 0
    number = 0
    while made < wanted:
        if number % len(passages) == 0:
            order = draw.permutation(len(passages))
        document = _document(passages[int(order[number % len(passages)])], draw)
        documents.append(document)
        made += len(document.encode()) + 2
        number += 1
    return "\n\n".join(documents) + "\n"


def _passages(texts: dict[str, str], draw: np.random.Generator) -> list[str]:
    found = []
    for name in sorted(texts):
        lines: list[str] = []
        limit = _between(draw, *PASSAGE_CHARACTERS)
        for line in texts[name].split("\n"):
            lines.append(line)
            if sum(map(len, lines)) >= limit:
                found.append("\n".join(lines).strip("\n"))
                lines, limit = [], _between(draw, *PASSAGE_CHARACTERS)
        found.append("\n".join(lines).strip("\n"))
    return [passage for passage in found if passage]


def _document(passage: str, draw: np.random.Generator) -> str:
    text = passage
    for kind, chance in CHANCES.items():
        if draw.random() < chance:
            text = KINDS[kind](text, draw)
    return text


def shuffled_paragraphs(text: str, draw: np.random.Generator) -> str:
    """Put the lines of a passage into a random order."""
    lines = [line for line in text.split("\n") if line]
    return "\n".join(lines[int(i)] for i in draw.permutation(len(lines)))


def near_duplicate(text: str, draw: np.random.Generator) -> str:
    """Repeat a passage with a few words left out, doubled or in capitals."""
    words = text.split(" ")
    for _ in range(max(1, len(words) // 40)):
        place = _between(draw, 0, len(words))
        words[place] = ("", words[place] + " " + words[place], words[place].upper())[_between(draw, 0, 3)]
    return text + "\n\n" + " ".join(words)


def broken_encoding(text: str, draw: np.random.Generator) -> str:
    """Read UTF-8 as if it were Windows-1252, lose bytes, or escape characters twice."""
    kind = _between(draw, 0, 4)
    curly = (
        text.replace("'", "\u2019").replace("--", "\u2014").replace(' "', " \u201c").replace('"', "\u201d")
    )
    if kind == 0:
        return curly.encode().decode("cp1252", errors="replace")
    if kind == 1:
        return curly.encode("ascii", errors="replace").decode().replace("?", "\ufffd")
    if kind == 2:
        return html.escape(html.escape(text)).replace("\n", "&#13;\n")
    accents = str.maketrans(
        {"e": "\u00e9", "a": "\u00e3", "o": "\u00f6", "u": "\u00fc", "n": "\u00f1", "c": "\u00e7"}
    )
    return " ".join(
        word.translate(accents).encode().decode("latin-1") if draw.random() < 0.08 else word
        for word in curly.split(" ")
    )


def markup(text: str, draw: np.random.Generator) -> str:
    """Dress a passage in HTML, wiki or Markdown markup."""
    lines = [line for line in text.split("\n") if line]
    maker = (_page, _wiki, _markdown)[_between(draw, 0, 3)]
    return "\n".join(maker(lines, _words(text, draw, 4), draw))


def _page(lines: list[str], title: str, draw: np.random.Generator) -> list[str]:
    rows = [f'<p class="{_pick(_NAMES, draw)}-{_between(draw, 1, 99)}">{html.escape(s)}</p>' for s in lines]
    links = [f'<a href="/{_pick(_NAMES, draw)}.html">{_pick(_NAMES, draw)}</a>' for _ in range(4)]
    menu = "".join(f"<li>{link}</li>" for link in links)
    return [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>',
        f'<body><ul id="nav">{menu}</ul><div id="{_pick(_NAMES, draw)}">',
        *rows,
        "</div></body></html>",
    ]


def _wiki(lines: list[str], title: str, draw: np.random.Generator) -> list[str]:
    linked = [s.replace(" the ", f" [[{_pick(_NAMES, draw)}|the]] ", 1) for s in lines]
    source = "{{" + f"cite|date={_date(draw)}" + "}}"
    return [f"== {title} ==", source, *linked, f"[[Category:{_pick(_NAMES, draw).title()}]]"]


def _markdown(lines: list[str], title: str, draw: np.random.Generator) -> list[str]:
    marked = []
    for line in lines:
        if draw.random() < 0.3:
            marked.append(f"> {line}")
        else:
            marked.append(f"* **{line}**" if len(line) < 60 else line)
    name, site, number = _pick(_NAMES, draw), _pick(_NAMES, draw), _between(draw, 100, 9999)
    return [f"# {title}", "", *marked, "", f"![{name}](http://{site}.example.org/img/{number}.jpg)"]


def boilerplate(text: str, draw: np.random.Generator) -> str:
    """Set notices of a web page before and after a passage."""
    menu = " | ".join(_pick(_NAMES, draw).title() for _ in range(_between(draw, 3, 8)))
    feet = "\n".join(_notice(text, draw) for _ in range(_between(draw, 1, 4)))
    return f"{menu}\n{text}\n{feet}"


def log_lines(text: str, draw: np.random.Generator) -> str:
    """Let lines of a server's log follow a passage."""
    return text + "\n\n" + "\n".join(_log_line(draw) for _ in range(_between(draw, 3, 10)))


def code(text: str, draw: np.random.Generator) -> str:
    """Let a piece of program, query or data follow a passage."""
    maker = (_python, _script, _query, _record, _style)[_between(draw, 0, 5)]
    return text + "\n\n" + "\n".join(maker(draw) for _ in range(_between(draw, 1, 4)))


KINDS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "shuffled_paragraphs": shuffled_paragraphs,
    "near_duplicate": near_duplicate,
    "broken_encoding": broken_encoding,
    "markup": markup,
    "boilerplate": boilerplate,
    "log_lines": log_lines,
    "code": code,
}


def _between(draw: np.random.Generator, low: int, high: int) -> int:
    return int(draw.integers(low, high))


def _pick(words: tuple[str, ...], draw: np.random.Generator) -> str:
    return words[_between(draw, 0, len(words))]


def _words(text: str, draw: np.random.Generator, count: int) -> str:
    words = text.split()
    start = _between(draw, 0, max(1, len(words) - count))
    return " ".join(words[start : start + count])


def _date(draw: np.random.Generator) -> str:
    return f"{_between(draw, 1998, 2025)}-{_between(draw, 1, 13):02d}-{_between(draw, 1, 29):02d}"


def _time(draw: np.random.Generator) -> str:
    return f"{_between(draw, 0, 24):02d}:{_between(draw, 0, 60):02d}:{_between(draw, 0, 60):02d}"


def _notice(text: str, draw: np.random.Generator) -> str:
    notice = _pick(_NOTICES, draw)
    for mark, make in (
        ("{date}", lambda: _date(draw)),
        ("{year}", lambda: str(_between(draw, 1998, 2025))),
        ("{name}", lambda: _pick(_NAMES, draw)),
        ("{words}", lambda: _words(text, draw, 3)),
        ("{number}", lambda: str(_between(draw, 1, 999))),
    ):
        while mark in notice:
            notice = notice.replace(mark, make(), 1)
    return notice


def _log_line(draw: np.random.Generator) -> str:
    level = _pick(("INFO", "INFO", "DEBUG", "WARN", "ERROR"), draw)
    address = ".".join(str(_between(draw, 1, 255)) for _ in range(4))
    kind = _between(draw, 0, 3)
    if kind == 0:
        when = f"{_date(draw)}T{_time(draw)}Z"
        page = f"/{_pick(_NAMES, draw)}/{_between(draw, 1, 9999)}.html"
        status = _pick(("200", "200", "301", "404", "500"), draw)
        return f'{address} - - [{when}] "GET {page} HTTP/1.1" {status} {_between(draw, 90, 99999)}'
    if kind == 1:
        when = f"{_date(draw)} {_time(draw)},{_between(draw, 0, 1000):03d}"
        service = _pick(_SERVICES, draw)
        first = f"{_pick(_FIELDS, draw)}={_between(draw, 0, 65536)}"
        return f"{when} [{level}] {service}: {first} {_pick(_FIELDS, draw)}=0x{_between(draw, 0, 2**32):08x}"
    when = _time(draw)
    process = f"host{_between(draw, 1, 40)} {_pick(_SERVICES, draw)}[{_between(draw, 100, 32768)}]"
    port, wait = _between(draw, 1024, 65536), _between(draw, 1, 600)
    return f"{when} {process}: connection from {address} port {port} timed out after {wait} ms"


def _python(draw: np.random.Generator) -> str:
    name, first, second = (_pick(_FIELDS, draw) for _ in range(3))
    times, factor = _between(draw, 2, 100), _between(draw, 2, 99)
    return (
        f"def get_{name}({first}, {second}=None):\n"
        f"    if {second} is None:\n        {second} = []\n"
        f"    for i in range({times}):\n        {second}.append({first}[i] * {factor})\n"
        f"    return {second}\n"
    )


def _script(draw: np.random.Generator) -> str:
    name, first = _pick(_FIELDS, draw), _pick(_FIELDS, draw)
    element, least = _pick(_NAMES, draw), _between(draw, 0, 100)
    return (
        f"function {name}_{first}(e) {{\n  var {first} = document.getElementById('{element}');\n"
        f"  if ({first} && {first}.{name} > {least}) {{ {first}.innerHTML = ''; }}\n"
        f"  return false;\n}}"
    )


def _query(draw: np.random.Generator) -> str:
    field, alias, table = _pick(_FIELDS, draw), _pick(_FIELDS, draw), _pick(_NAMES, draw)
    least, group, limit = _between(draw, 1, 99999), _pick(_FIELDS, draw), _between(draw, 1, 100)
    return (
        f"SELECT {field}, COUNT(*) AS {alias} FROM {table} WHERE id > {least} GROUP BY {group} LIMIT {limit};"
    )


def _record(draw: np.random.Generator) -> str:
    pairs = (f'"{_pick(_FIELDS, draw)}": {_between(draw, 0, 10000)}' for _ in range(_between(draw, 2, 6)))
    fields = ", ".join(pairs)
    return (
        f'{{"id": {_between(draw, 1, 10**6)}, {fields}, "url": "http://{_pick(_NAMES, draw)}.example.net/"}}'
    )


def _style(draw: np.random.Generator) -> str:
    name = f"{_pick(_NAMES, draw)}-{_pick(_FIELDS, draw)}"
    margin, colour, width = _between(draw, 0, 40), _between(draw, 0, 2**24), _between(draw, 1, 101)
    return f".{name} {{ margin: {margin}px; color: #{colour:06x}; width: {width}%; }}"
