"""Build the cloze items: a context from held-out text, its true next word, and three distractors.

A word qualifies where it is a likely word after the two words before it in the *training* text, so
that a small model stands above chance; it is not chosen by any model's answer. Distractors are words of
the same source that follow the same preceding word in the training text, have the same number of tokens,
a like frequency and a like ending, and never follow the same two words there.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynstat.errors import DynstatError

from .cloze_rejected import REJECTED
from .matching import token_lengths

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SEED = 20261120
PER_SOURCE = 24
#: Bounds of a context in tokens of the panel.
SHORTEST, LONGEST = 22, 48
#: How often the two words before the true one must have been seen.
LEAST_SEEN = 3
#: Least share of the true word after these two; the first that leaves a source enough places is taken.
LEAST_SHARES = (0.1, 0.05, 0.03, 0.02, 0.01)
_ENDINGS = ("ing", "ed", "ly", "ness", "tion", "ment", "est", "eth", "s")
_FUNCTION_WORDS = frozenset(
    "the and but for nor yet that this these those with from into unto upon over under after before "
    "him her his hers she they them their theirs thee thou thy thine you your yours our ours who whom "
    "whose which what when where why how all any some none not own self himself herself itself "
    "themselves myself yourself was were are been being have has had hath doth did does done shall "
    "will should would could may might must can there here then than too very also only even more "
    "most such same other another both either neither one two ever never again now out off down away "
    "about well much many least less let".split()
)
_SPEAKER = re.compile(r"^[A-Z][A-Z .,']+\.?$")
# A context cut inside quotation marks or brackets reads oddly.
_ODD = re.compile(r"[\"\d()\[\]&*$/]|--")
_SENTENCE_END = re.compile(r"(?<!Mr)(?<!Mrs)(?<!Dr)[.!?]\s+")
_UNIT = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|[.,;:!?]")


@dataclass(frozen=True)
class Cloze:
    """One item.

    Attributes
    ----------
    source : str
        Corpus of the held-out text.
    context : str
        What is read; the continuation follows after one space.
    continuation : str
        The true next word.
    distractors : tuple of str
        Three words of as many tokens.
    """

    source: str
    context: str
    continuation: str
    distractors: tuple[str, str, str]


@dataclass(frozen=True)
class _Place:
    position: int
    context: str
    word: str
    key: tuple[str, str]
    share: float


@dataclass(frozen=True)
class _Counts:
    words: Counter[str]
    after_one: Mapping[str, Counter[str]]
    after_two: Mapping[tuple[str, str], Counter[str]]


def build_cloze(
    train: Mapping[str, str],
    held_out: Mapping[str, str],
    tokenizer: Tokenizer,
    rng: int | np.random.Generator = SEED,
    per_source: int = PER_SOURCE,
) -> list[Cloze]:
    """Draw cloze items from held-out text.

    Parameters
    ----------
    train, held_out : mapping of str to str
        Source to text (see ``dynstat.extraction.training.corpora``); only `held_out` is quoted, `train`
        gives the counts.
    tokenizer : Tokenizer
        The panel's tokenizer.
    rng : int or numpy.random.Generator
        Order in which qualifying places are taken.
    per_source : int
        Items a source.

    Returns
    -------
    list of Cloze
        `per_source` items of every source, sources in the order of `held_out`, items in the order of the
        text.

    Raises
    ------
    DynstatError
        S403 where a source has too few qualifying places.
    """
    rng = np.random.default_rng(rng)
    counts = _count("\n".join(train.values()))
    items: list[Cloze] = []
    for source, text in held_out.items():
        own = Counter(unit for unit in _UNIT.findall(train[source]) if unit.islower())
        tokens = _tokens_of_words(own, tokenizer)
        places = list(_places(text, source, counts))
        lengths = token_lengths(tokenizer, [place.context for place in places])
        places = [p for p, n in zip(places, lengths, strict=True) if SHORTEST <= n <= LONGEST]
        places = [places[number] for number in rng.permutation(len(places))]
        for least in LEAST_SHARES:
            kept = _first_items([p for p in places if p.share >= least], source, counts, tokens, per_source)
            if len(kept) == per_source:
                break
        else:
            raise DynstatError(
                "S403",
                f"too few places for cloze items in {source}",
                where=source,
                found=len(kept),
                expected=f"at least {per_source}",
            )
        items += [kept[position] for position in sorted(kept)]
    return items


def cloze_rows(items: list[Cloze]) -> list[dict[str, str]]:
    """Give the items as rows of ``cloze.csv``.

    Parameters
    ----------
    items : list of Cloze
        In the order of :func:`build_cloze`.

    Returns
    -------
    list of dict
        Columns id (numbered within its source), source, context, continuation, distractors.
    """
    number: Counter[str] = Counter()
    rows = []
    for item in items:
        number[item.source] += 1
        rows.append(
            {
                "id": f"cloze-{item.source}-{number[item.source]:02d}",
                "source": item.source,
                "context": item.context,
                "continuation": item.continuation,
                "distractors": " | ".join(item.distractors),
            }
        )
    return rows


def _first_items(
    places: list[_Place], source: str, counts: _Counts, tokens: Mapping[str, int], n: int
) -> dict[int, Cloze]:
    kept: dict[int, Cloze] = {}
    seen: set[str] = set()
    for place in places:
        if place.word in seen or f"{source}: {' '.join(place.key)} {place.word}" in REJECTED:
            continue
        distractors = _distractors(place, counts, tokens)
        if distractors is not None:
            seen.add(place.word)
            kept[place.position] = Cloze(source, place.context, place.word, distractors)
        if len(kept) == n:
            break
    return kept


def _count(text: str) -> _Counts:
    words: Counter[str] = Counter()
    after_one: dict[str, Counter[str]] = defaultdict(Counter)
    after_two: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    units = [unit.lower() for unit in _UNIT.findall(text)]
    for u, v, w in zip(units, units[1:], units[2:], strict=False):
        words[w] += 1
        after_one[v][w] += 1
        after_two[u, v][w] += 1
    return _Counts(words, after_one, after_two)


def _passages(text: str, source: str) -> Iterator[str]:
    lines = [line for line in text.split("\n") if not _SPEAKER.match(line)]
    if source == "shakespeare":
        blocks = [" ".join(block.split()) for block in "\n".join(lines).split("\n\n")]
    else:
        blocks = lines
    yield from (block for block in blocks if block)


def _places(text: str, source: str, counts: _Counts) -> Iterator[_Place]:
    position = 0
    for passage in _passages(text, source):
        starts = [0] + [m.end() for m in _SENTENCE_END.finditer(passage)]
        for match in re.finditer(r"(?<= )([a-z]{3,})(?=[.,;:!?])", passage):
            word = match[1]
            before = _UNIT.findall(passage[: match.start()])
            if word in _FUNCTION_WORDS or len(before) < 3 or before[-1] in ".,;:!?":
                continue
            key = (before[-2].lower(), before[-1].lower())
            seen = sum(counts.after_two[key].values()) if key in counts.after_two else 0
            if seen < LEAST_SEEN:
                continue
            # One sentence, or the shortest run of whole sentences that is long enough to set a scene.
            for start in reversed([s for s in starts if s < match.start()]):
                context = passage[start : match.start()].rstrip()
                if len(context) >= 60:
                    if context[0].isupper() and not _ODD.search(context):
                        position += 1
                        yield _Place(position, context, word, key, counts.after_two[key][word] / seen)
                    break


def _tokens_of_words(own: Counter[str], tokenizer: Tokenizer) -> dict[str, int]:
    words = sorted(w for w, n in own.items() if n >= 3 and w.isalpha())
    return dict(zip(words, token_lengths(tokenizer, [" " + w for w in words]), strict=True))


def _ending(word: str) -> str:
    return next((e for e in _ENDINGS if word.endswith(e) and len(word) > len(e) + 2), "")


def _distractors(place: _Place, counts: _Counts, tokens: Mapping[str, int]) -> tuple[str, str, str] | None:
    word = place.word
    present = {unit.lower() for unit in _UNIT.findall(place.context)}
    if word not in tokens:
        return None
    fit = [
        other
        for other in counts.after_one[place.key[1]]
        if len(other) >= 3
        and other in tokens
        and tokens[other] == tokens[word]
        and _ending(other) == _ending(word)
        and other[:3] != word[:3]
        and other not in present
        and other not in _FUNCTION_WORDS
        and counts.after_two[place.key][other] == 0
    ]
    frequency = math.log(counts.words[word])
    fit.sort(key=lambda other: (abs(math.log(counts.words[other]) - frequency), other))
    chosen: list[str] = []
    for other in fit:
        if all(other[:3] != c[:3] for c in chosen):
            chosen.append(other)
        if len(chosen) == 3:
            a, b, c = sorted(chosen)
            return a, b, c
    return None
