"""Split an lme4 formula into its fixed part and its random terms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DynstatError

_TOKEN = re.compile(
    r"\s*(?:(?P<name>`[^`]+`|[^\W\d]\w*(?:\.\w+)*)|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<string>\"[^\"]*\"|'[^']*')|(?P<op>\|\||\*\*|%in%|[~+\-*/:|()^,=\[\]{}<>!.]))"
)


@dataclass(frozen=True)
class Token:
    """A piece of the formula and the column where it starts."""

    text: str
    start: int
    kind: str

    @property
    def end(self) -> int:
        """The column after its last character."""
        return self.start + len(self.text)


@dataclass(frozen=True)
class RandomTerm:
    """One bar of a formula, slashes and double bars already expanded.

    Attributes
    ----------
    columns : str
        Its left side as a formula of columns: ``1``, ``1 + x``, ``0 + x``.
    variables : tuple of str
        The columns whose combination is the grouping factor, in lme4's order.
    name : str
        The grouping factor as lme4 names it: ``b:a`` from ``a/b``.
    label : str
        The same from the outside in, as decompositions name it: ``a:b`` from ``a/b``.
    split : bool
        Whether the term comes from a double bar.
    """

    columns: str
    variables: tuple[str, ...]
    name: str
    label: str
    split: bool = False


@dataclass(frozen=True)
class MixedFormula:
    """A parsed formula.

    Attributes
    ----------
    text, response, fixed : str
        The whole, the left side, and the fixed part of the right side (``1`` where nothing else is left).
    random : tuple of RandomTerm
        In the order of the formula.
    """

    text: str
    response: str
    fixed: str
    random: tuple[RandomTerm, ...]


def parse_formula(text: str) -> MixedFormula:
    """Parse an lme4 formula such as ``y ~ x + (1 | a/b) + (x || g)``.

    Raises
    ------
    DynstatError
        S401 with a mark under the offending token.

    Examples
    --------
    >>> f = parse_formula("y ~ x + (1 | a/b)")
    >>> f.fixed, [t.name for t in f.random], [t.label for t in f.random]
    ('x', ['b:a', 'a'], ['a:b', 'a'])
    """
    return _Parser(text).parse()


def tokenise(text: str) -> list[Token]:
    """Return the tokens of a formula or a part of one.

    Raises
    ------
    DynstatError
        S401 for a character that no formula holds.
    """
    out, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            raise DynstatError(
                "S401",
                "this cannot stand in a formula",
                where=marked(text, start, 1),
                found=text[start],
                mend="remove it",
            )
        kind = str(match.lastgroup)
        out.append(Token(match.group(kind), match.start(kind), kind))
        at = match.end()
    return out


def split_terms(
    tokens: Sequence[Token], operators: tuple[str, ...] = ("+", "-")
) -> list[tuple[Token | None, list[Token]]]:
    """Return the pieces between operators outside parentheses, each with the operator before it."""
    depth = 0
    sign: Token | None = None
    piece: list[Token] = []
    out: list[tuple[Token | None, list[Token]]] = []
    for i, token in enumerate(tokens):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        leading = i == 0 and token.text in "+-"
        if depth == 0 and token.text in operators:
            if not leading:
                out.append((sign, piece))
            sign, piece = token, []
        else:
            piece.append(token)
    return [*out, (sign, piece)]


class _Parser:
    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise DynstatError(
                "S401", "a formula is text", found=type(text).__name__, mend="write it in quotes: 'y ~ (1|g)'"
            )
        # A formula may run over lines; the mark under a token needs one.
        self.text = re.sub(r"\s", " ", text).rstrip()
        self.tokens = tokenise(self.text)

    def parse(self) -> MixedFormula:
        tildes = [t for t in self.tokens if t.text == "~"]
        if len(tildes) != 1:
            raise self._error(
                "the formula needs one ~", tildes[1] if tildes else None, "write response ~ terms"
            )
        at = self.tokens.index(tildes[0])
        left, right = self.tokens[:at], self.tokens[at + 1 :]
        if not left:
            raise self._error("the left side is empty", tildes[0], "name the outcome before ~")
        if bar := next((t for t in left if "|" in t.text), None):
            raise self._error("a bar on the left side", bar, "random terms stand on the right side")
        if not right:
            raise self._error("the right side is empty", tildes[0], "write at least 1 after ~")
        if dot := next((t for t in self.tokens if t.text == "."), None):
            raise self._error("a dot stands for nothing here", dot, "name the columns; update() reads dots")
        self._check_parentheses()
        fixed: list[str] = []
        random: list[RandomTerm] = []
        self._sum(right, fixed, random)
        if not random:
            raise self._error("there is no random term", None, "add one such as (1 | group)")
        rest = "".join(fixed).removeprefix("+").strip() or "1"
        return MixedFormula(self.text, self._slice(left), rest, tuple(random))

    # -- the fixed and random terms of a sum ------------------------------------------------------------

    def _sum(self, tokens: Sequence[Token], fixed: list[str], random: list[RandomTerm]) -> None:
        for sign, piece in split_terms(tokens):
            if not piece:
                raise self._error("a term is missing", sign or tokens[0], "write a term on both sides")
            bar = next((t for t in piece if "|" in t.text), None)
            if bar is None:
                fixed.append(
                    f" {sign.text if sign else '+'} {self._slice(piece)}"
                    if fixed or (sign and sign.text == "-")
                    else self._slice(piece)
                )
                continue
            if sign is not None and sign.text == "-":
                raise self._error("a random term cannot be subtracted", sign, "leave the term out")
            inner = _unwrap(piece)
            if inner is piece:
                if _at_top(piece, bar):
                    raise self._error(
                        "a bar outside parentheses", bar, "write it in parentheses: (1 | group)"
                    )
                raise self._error(
                    "a bar inside a function or a product", bar, "random terms are added: ... + (1 | group)"
                )
            while (deeper := _unwrap(inner)) is not inner:
                inner = deeper
            if _at_top(inner, bar):
                random.extend(self._bar(inner, bar))
            else:
                self._sum(inner, fixed, random)

    def _bar(self, tokens: Sequence[Token], bar: Token) -> list[RandomTerm]:
        at = list(tokens).index(bar)
        left, right = tokens[:at], tokens[at + 1 :]
        if second := next((t for t in right if "|" in t.text), None):
            raise self._error("a second bar in one term", second, "write one bar a term")
        if not left:
            raise self._error("nothing stands before the bar", bar, "write 1 for an intercept: (1 | group)")
        if not right:
            raise self._error("nothing stands after the bar", bar, "name the grouping factor")
        groups = self._groups(right)
        out = []
        for columns in self._columns(left, bar):
            out += [RandomTerm(columns, v, name, label, bar.text == "||") for v, name, label in groups]
        return out

    def _columns(self, left: Sequence[Token], bar: Token) -> list[str]:
        pieces = split_terms(left)
        intercept, slopes = True, []
        for sign, piece in pieces:
            if not piece:
                raise self._error("a term is missing", sign or bar, "write a term on both sides")
            source = self._slice(piece)
            minus = sign is not None and sign.text == "-"
            if source in ("0", "1"):
                intercept = (source == "1") != minus
            elif minus:
                raise self._error("a slope cannot be subtracted", sign, "leave the slope out")
            else:
                slopes.append(source)
        if not intercept and not slopes:
            raise self._error("the term has no columns", left[0], "write 1 or a slope before the bar")
        if bar.text == "|":
            return [" + ".join(["1" if intercept else "0", *slopes])]
        return (["1"] if intercept else []) + [f"0 + {term}" for s in slopes for term in self._terms(s, left)]

    def _terms(self, source: str, left: Sequence[Token]) -> list[str]:
        """Return the terms of x*z: a double bar separates them all, as in lme4."""
        if not any(t.text in ("*", "^", "**", "/", "%in%") for t in tokenise(source)):
            return [source]
        from formulaic import Formula

        try:
            return [str(t) for t in Formula(f"0 + {source}")]
        except Exception as error:
            raise self._error(
                "this cannot stand before a bar", left[0], str(error).splitlines()[0]
            ) from error

    # -- grouping factors -------------------------------------------------------------------------------

    def _groups(self, right: Sequence[Token]) -> list[tuple[tuple[str, ...], str, str]]:
        """Return (variables, lme4 name, label) of every factor that the right side of a bar names."""
        tokens = _strip(right)
        levels = [piece for _, piece in split_terms(tokens, ("/",))]
        out: list[tuple[tuple[str, ...], str, str]] = []
        for piece in levels:
            if not piece:
                raise self._error("a factor is missing beside the slash", tokens[0], "write a/b")
            names = self._interaction(piece)
            # lme4 keeps the parentheses of a/(b:g): (b:g):a, while a/b:g is b:g:a.
            own = f"({':'.join(names)})" if len(names) > 1 and _strip(piece) is not piece else ":".join(names)
            if not out:
                joined = ":".join(names)
                out.insert(0, (names, joined, joined))
                continue
            outer, outer_name, outer_label = out[0]
            shown = f"({outer_name})" if ":" in outer_name else outer_name
            out.insert(
                0,
                (
                    names + tuple(v for v in outer if v not in names),
                    own + ":" + shown,
                    ":".join([outer_label, *names]),
                ),
            )
        return out

    def _interaction(self, tokens: Sequence[Token]) -> tuple[str, ...]:
        names: list[str] = []
        for _, part in split_terms(_strip(tokens), (":",)):
            piece = _strip(part)
            if not piece:
                raise self._error("a factor is missing beside the colon", tokens[0], "write a:b")
            if any(t.text == ":" for t in piece):
                names += [n for n in self._interaction(piece) if n not in names]
                continue
            if len(piece) != 1 or piece[0].kind != "name":
                bad = next((t for t in piece if t.kind != "name"), piece[0])
                raise self._error(
                    "a grouping factor is a column name, a:b or a/b",
                    bad,
                    "make a column of it first; write crossed factors as terms of their own",
                )
            names.append(piece[0].text.strip("`"))
        return tuple(names)

    # -- tokens -----------------------------------------------------------------------------------------

    def _check_parentheses(self) -> None:
        opened: list[Token] = []
        for token in self.tokens:
            if token.text == "(":
                opened.append(token)
            elif token.text == ")":
                if not opened:
                    raise self._error("this parenthesis was never opened", token, "remove it")
                opened.pop()
        if opened:
            raise self._error("this parenthesis is never closed", opened[-1], "close it")

    def _slice(self, tokens: Sequence[Token]) -> str:
        return self.text[tokens[0].start : tokens[-1].end]

    def _error(self, what: str, token: Token | None, mend: str) -> DynstatError:
        where = self.text
        if token is not None:
            where = marked(self.text, token.start, len(token.text))
        return DynstatError("S401", what, where=where, found=token.text if token else "", mend=mend)


def marked(text: str, start: int, length: int) -> str:
    """Return the formula on a line of its own with a mark under one piece of it."""
    return f"\n    {text}\n    {' ' * start}{'^' * length}"


def _unwrap(tokens: Sequence[Token]) -> Sequence[Token]:
    """Return the inside of one pair of parentheses around all tokens, else the same object."""
    if len(tokens) < 2 or tokens[0].text != "(" or tokens[-1].text != ")":
        return tokens
    depth = 0
    for token in tokens[:-1]:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0:
            return tokens
    return tokens[1:-1]


def _strip(tokens: Sequence[Token]) -> Sequence[Token]:
    while (inner := _unwrap(tokens)) is not tokens:
        tokens = inner
    return tokens


def _at_top(tokens: Sequence[Token], wanted: Token) -> bool:
    depth = 0
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token is wanted:
            return depth == 0
    return False
