"""The public-domain corpora: checked by SHA-256, cleaned, and split by book.

The held-out part of every source is made of whole books (a novel, five books of the Bible, a play,
the addresses of two presidents), so that no held-out sentence stands next to a training sentence.
Books of the Bible with parallels elsewhere in it (the Gospels, Kings and Chronicles, 2 Peter and
Jude) are never held out: their verses would be half known from training.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from dynstat.errors import DynstatError

#: SHA-256 of the compressed corpus files, in the order in which the curated mix joins them.
SHA256: dict[str, str] = {
    "austen": "ea15c6e82bd3a577d5b4366acd9ac9aa4de45f0a4c3ade44b162008980e9adcf",
    "kjv": "fa3b36493c1ae7fa98203edb460929b0f95a53292b364c4ac3308deccd774478",
    "shakespeare": "07cf4d0bc31cec91d338426c7f082dbd03c843ac576cd64a47fd89ae903f51c6",
    "speeches": "43b2cb6de8fb35d34e2cd15e3e8ebf39779ae993722b48ae3bfc923c2ab89de9",
}
SOURCES: tuple[str, ...] = tuple(SHA256)


@dataclass(frozen=True)
class HeldOutBook:
    """Name one held-out book and the lines at which it begins and the next one begins.

    Attributes
    ----------
    title : str
        Name of the book.
    first : str
        Start of the first line of the book.
    following : str
        Start of the first line after the book.
    """

    title: str
    first: str
    following: str


HELD_OUT: dict[str, tuple[HeldOutBook, ...]] = {
    "austen": (HeldOutBook("Northanger Abbey", "NORTHANGER ABBEY", "Persuasion"),),
    "kjv": (
        HeldOutBook(
            "Ruth",
            "Now it came to pass in the days when the judges ruled",
            "Now there was a certain man of Ramathaimzophim",
        ),
        HeldOutBook(
            "Esther", "Now it came to pass in the days of Ahasuerus", "There was a man in the land of Uz"
        ),
        HeldOutBook("Ecclesiastes", "The words of the Preacher, the son of David", "The song of songs"),
        HeldOutBook(
            "Jonah", "Now the word of the LORD came unto Jonah", "The word of the LORD that came to Micah"
        ),
        HeldOutBook(
            "Acts",
            "The former treatise have I made, O Theophilus",
            "Paul, a servant of Jesus Christ, called to be an apostle, separated",
        ),
    ),
    "shakespeare": (HeldOutBook("Macbeth", "The Tragedy of Macbeth", "The Merchant of Venice"),),
    "speeches": (
        HeldOutBook(
            "Addresses of Gerald R. Ford and Jimmy Carter on the state of the Union",
            "PRESIDENT GERALD R. FORD'S ADDRESS",
            "PRESIDENT RONALD REAGAN'S ADDRESS",
        ),
    ),
}


def corpus_text(corpora_dir: Path, source: str) -> str:
    """Read one corpus file after checking its SHA-256.

    Parameters
    ----------
    corpora_dir : Path
        Folder that holds ``<source>.txt.gz``.
    source : str
        One of :data:`SOURCES`.

    Returns
    -------
    str
        The text as it lies in the file.

    Raises
    ------
    DynstatError
        F001 where the file is missing, X213 where its hash is not the recorded one.
    """
    path = Path(corpora_dir) / f"{source}.txt.gz"
    if not path.is_file():
        raise DynstatError(
            "F001",
            f"the corpus file {path.name} does not exist",
            where=str(path),
            expected=f"a folder with {', '.join(f'{name}.txt.gz' for name in SOURCES)}",
            mend="give the folder of the corpora with --corpora",
        )
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[source]:
        raise DynstatError(
            "X213",
            f"the corpus file {path.name} is not the one that the panel was trained on",
            where=str(path),
            found=f"SHA-256 {found}",
            expected=f"SHA-256 {SHA256[source]}",
            mend="use the registered file; other corpora make another panel",
        )
    return gzip.decompress(data).decode("utf-8")


def split_by_book(text: str, books: tuple[HeldOutBook, ...]) -> tuple[str, str]:
    """Take whole books out of a text.

    Parameters
    ----------
    text : str
        A corpus as it lies in its file.
    books : tuple of HeldOutBook
        Books to hold out, in the order in which they stand in the text.

    Returns
    -------
    train, held_out : str
        The rest, and the books joined; every line is in exactly one of the two.

    Raises
    ------
    DynstatError
        X213 where a book's first line, or the first line after it, is not in the text.
    """
    lines = text.split("\n")
    train: list[str] = []
    held: list[str] = []
    position = 0
    for book in books:
        start = _line_starting_with(lines, book.first, position)
        stop = _line_starting_with(lines, book.following, start + 1)
        train += lines[position:start]
        held += lines[start:stop]
        position = stop
    return "\n".join(train + lines[position:]), "\n".join(held)


def _line_starting_with(lines: list[str], prefix: str, begin: int) -> int:
    for number in range(begin, len(lines)):
        if lines[number].startswith(prefix):
            return number
    raise DynstatError(
        "X213",
        "a held-out book cannot be found in its corpus",
        where=f"line {begin + 1} on",
        found="no such line",
        expected=f"a line that starts with {prefix!r}",
        mend="use the registered corpora",
    )


def clean(text: str, source: str) -> str:
    """Clean one corpus: unwrap paragraphs, drop emphasis marks, tidy white space.

    Novels lie hard-wrapped at 72 columns; their paragraphs become single lines, a blank line between
    two. Verse keeps its lines. The Bible keeps a verse a line.

    Parameters
    ----------
    text : str
        A corpus, or a part of one, as it lies in its file.
    source : str
        One of :data:`SOURCES`.

    Returns
    -------
    str
        Cleaned text that ends in one newline; empty if nothing is left.
    """
    if source == "austen":
        paragraphs = [" ".join(block.split()) for block in re.split(r"\n\s*\n", text.replace("_", ""))]
        joined = "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
    elif source == "speeches":
        lines = [" ".join(line.split()) for line in text.split("\n")]
        joined = "\n\n".join(line for line in lines if line)
    elif source == "kjv":
        lines = [" ".join(line.split()) for line in text.split("\n")]
        joined = "\n".join(line for line in lines if line)
    else:
        lines = [" ".join(line.split()) for line in text.split("\n")]
        joined = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
    return joined + "\n" if joined else ""


def held_out(corpora_dir: Path) -> dict[str, str]:
    """Give the cleaned held-out text of every source.

    Parameters
    ----------
    corpora_dir : Path
        Folder with the corpus files.

    Returns
    -------
    dict of str to str
        Source name to text; no model of the panel was trained on any of it.

    Raises
    ------
    DynstatError
        As :func:`corpus_text`.
    """
    return {name: clean(_parts(corpora_dir, name)[1], name) for name in SOURCES}


def train_text(corpora_dir: Path) -> dict[str, str]:
    """Give the cleaned training text of every source.

    Parameters
    ----------
    corpora_dir : Path
        Folder with the corpus files.

    Returns
    -------
    dict of str to str
        Source name to text, the held-out books left out.

    Raises
    ------
    DynstatError
        As :func:`corpus_text`.
    """
    return {name: clean(_parts(corpora_dir, name)[0], name) for name in SOURCES}


def _parts(corpora_dir: Path, source: str) -> tuple[str, str]:
    return split_by_book(corpus_text(corpora_dir, source), HELD_OUT[source])


def curated(texts: dict[str, str]) -> str:
    """Join the sources into the curated mix, in the order of :data:`SOURCES`.

    Parameters
    ----------
    texts : dict of str to str
        Cleaned text of every source.

    Returns
    -------
    str
        One text; every source keeps its natural size.
    """
    return "\n".join(texts[name] for name in SOURCES)
