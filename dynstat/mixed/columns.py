"""Columns of a formula part: read by formulaic, named and coded as R does, repeatable on new rows."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from .formula import marked, tokenise

Array = NDArray[np.float64]
_CONSTANTS = {"TRUE": "True", "FALSE": "False", "NULL": "None"}
_WORDS = {*_CONSTANTS, *_CONSTANTS.values(), "Treatment", "Poly", "Sum", "Helmert", "Diff"}


@dataclass(frozen=True)
class Coding:
    """How the columns of one part of a formula are made.

    Attributes
    ----------
    source, text : str
        The part as written, and the whole formula.
    names : tuple of str
        Its columns as R names them.
    kept : ndarray of int
        Places of the columns that the model holds, where some were dropped.
    spec : formulaic.ModelSpec or None
        Levels, knots and centres found in the data of the fit; None for an intercept or nothing.
    """

    source: str
    text: str
    names: tuple[str, ...]
    kept: NDArray[np.intp]
    spec: Any

    @property
    def variables(self) -> tuple[str, ...]:
        """Columns of a frame that it reads."""
        return variables(self.source)

    def columns(self, rows: pd.DataFrame) -> Array:
        """Return the columns for new rows; a missing value gives NaN.

        Raises
        ------
        DynstatError
            S404 for a level that the fit did not see, S401 where a column cannot be computed.
        """
        if self.spec is None:
            return np.ones((len(rows), self.kept.size))
        if not self.kept.size:
            return np.zeros((len(rows), 0))
        whole = rows.loc[:, list(self.variables)].notna().all(axis=1).to_numpy()
        out = np.full((len(rows), self.kept.size), np.nan)
        if not whole.any():
            return out
        from formulaic.errors import DataMismatchWarning

        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", DataMismatchWarning)
                matrix = self.spec.get_model_matrix(_plain(rows.loc[whole]), context=_context())
        except DataMismatchWarning as warning:
            found = re.search(r"\{.*\}", str(warning))
            raise DynstatError(
                "S404",
                "new data hold a level of a fixed factor that the fit did not see",
                where=self.text,
                found=found.group() if found else str(warning),
                expected="levels of the data fitted",
                mend="leave these rows out: nothing is known about such a level",
            ) from warning
        except Exception as error:
            raise _cannot_compute(self.source, self.text, error) from error
        out[whole] = np.asarray(matrix, dtype=np.float64)[:, self.kept]
        return out


def make_columns(source: str, rows: pd.DataFrame, text: str) -> tuple[Array, Coding]:
    """Return the columns of `source` over complete rows, and their coding.

    Strings and categories are coded by treatment contrasts, ordered categoricals by orthogonal polynomials,
    truth values as a factor of FALSE and TRUE.

    Raises
    ------
    DynstatError
        S401 where a part cannot be computed.
    """
    if (plain := source.strip()) in ("0", "1"):
        names: tuple[str, ...] = ("(Intercept)",) if plain == "1" else ()
        return np.ones((len(rows), len(names))), Coding(source, text, names, np.arange(len(names)), None)
    from formulaic import model_matrix

    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            read = _in_r_order(_translate(source, rows))
            matrix = model_matrix(read, _plain(rows), na_action="ignore", context=_context())
    except Exception as error:
        raise _cannot_compute(source, text, error) from error
    spec = matrix.model_spec
    names = r_names(str(c) for c in matrix.columns)
    values = np.asarray(matrix, dtype=np.float64).reshape(len(rows), -1)
    return values, Coding(source, text, names, np.arange(len(names)), spec)


def check_levels(coding: Coding) -> None:
    """Refuse a factor of one level, whose contrasts would be no columns at all (S402)."""
    if coding.spec is None:
        return
    for factor, (_, state) in coding.spec.encoder_state.items():
        levels = state.get("categories")
        if levels is not None and len(levels) < 2:
            name = _r_factor(str(factor))
            raise DynstatError(
                "S402",
                f"the factor {name} has one level",
                where=mark(coding.text, name),
                found=", ".join(map(str, levels)) or "no level",
                expected="at least two levels in the complete rows",
                mend="leave it out of the formula",
            )


def is_one_number(coding: Coding) -> bool:
    """Say whether a part is one numeric column, as an outcome must be."""
    kinds = [str(getattr(kind, "value", kind)) for kind, _ in coding.spec.encoder_state.values()]
    return len(coding.names) == 1 and kinds == ["numerical"]


def variables(source: str) -> tuple[str, ...]:
    """Return the names of columns that a part of a formula reads."""
    tokens = tokenise(source)
    out = []
    for i, token in enumerate(tokens):
        called = i + 1 < len(tokens) and tokens[i + 1].text == "("
        # df in bs(x, df=4), but not f in I(f == "v").
        after = [t.text for t in tokens[i + 1 : i + 3]]
        keyword = after[:1] == ["="] and after != ["=", "="]
        if token.kind != "name" or called or keyword or token.text in _WORDS:
            continue
        if token.text.startswith(("contr.", "np.")):
            continue
        out.append(token.text.strip("`"))
    return tuple(dict.fromkeys(out))


def r_names(columns: Iterable[str]) -> tuple[str, ...]:
    """Return R's names of formulaic's columns: ``f[T.b]:x`` is ``fb:x``."""
    ranks: dict[str, dict[str, int]] = {}

    def bracket(match: re.Match[str]) -> str:
        before, tag, level = match.group("before"), match.group("tag"), match.group("level")
        if tag in ("S.", "H.", "D."):
            # R numbers these contrasts, whatever the levels are called.
            seen = ranks.setdefault(before, {})
            return before + str(seen.setdefault(level, len(seen) + 1))
        level = re.sub(r"^(-?\d+)\.0$", r"\1", level)
        return before + {"True": "TRUE", "False": "FALSE"}.get(level, level)

    out = []
    for name in columns:
        if name == "Intercept":
            out.append("(Intercept)")
            continue
        name = re.sub(r"(?P<before>(?:^|(?<=:)).*?)\[(?P<tag>[TSHD]\.)?(?P<level>[^\]]*)\]", bracket, name)
        out.append(_r_factor(name))
    return tuple(out)


def _r_factor(name: str) -> str:
    """Write a function call as R prints it; undo what _translate put around a name."""
    name = re.sub(
        r"(?:ordered_(?=\([^()]*, contr\.poly\))|logical_)\(`?([^(),`]+)`?(?:, contr\.poly)?\)", r"\1", name
    )
    if "(" in name:
        name = re.sub(r"`([\w.]+)`", r"\1", name).replace(" ** ", "^").replace(" / ", "/").replace("'", '"')
        name = re.sub(r"(?<![=<>! ])=(?![= ])", " = ", name)
        name = re.sub(r"\bTrue\b", "TRUE", re.sub(r"\bFalse\b", "FALSE", name))
    return name


def _translate(source: str, rows: pd.DataFrame) -> str:
    """Write a part of an R formula for formulaic: Python inside functions, contrasts around bare factors."""
    tokens = tokenise(source)
    out: list[str] = []
    calls: list[bool] = []
    last = 0
    for i, token in enumerate(tokens):
        out.append(source[last : token.start])
        last = token.end
        inside = any(calls)
        following = tokens[i + 1].text if i + 1 < len(tokens) else ""
        text = token.text
        if text == "(":
            calls.append(i > 0 and tokens[i - 1].kind == "name")
        elif text == ")" and calls:
            calls.pop()
        elif inside and text == "^":
            text = "**"
        elif text == "%in%":
            text = ":"
        elif inside and token.kind == "name" and text in rows.columns and not text.isidentifier():
            # Python would read x.dot as an attribute.
            text = f"`{text}`"
        elif text in _CONSTANTS:
            text = _CONSTANTS[text]
        elif text == "as.factor" and following == "(":
            text = "factor"
        elif token.kind == "name" and not inside and following != "(":
            text = _coded(text, rows)
        out.append(text)
    return "".join(out) + source[last:]


def _in_r_order(source: str) -> Any:
    """Put the factors of an interaction in the order in which the formula names them first, as R does."""
    if not any(t.text in ("*", ":", "^", "**", "/") for t in tokenise(source)):
        return source
    from formulaic import Formula
    from formulaic.parser.types import Term

    formula = Formula(source)
    plain = "".join(source.split())

    def first(factor: Any) -> int:
        word = re.escape("".join(str(factor).split()))
        at = re.search(rf"(?<![\w.]){word}(?![\w.])", plain)
        return at.start() if at else len(plain)

    return Formula([Term(sorted(term.factors, key=first)) for term in formula])


def _coded(name: str, rows: pd.DataFrame) -> str:
    plain = name.strip("`")
    if plain not in rows.columns:
        return name
    dtype = rows[plain].dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return f"ordered_({name}, contr.poly)" if dtype.ordered else name
    return f"logical_({name})" if pd.api.types.is_bool_dtype(dtype) else name


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    """Let numbers in object columns be numbers, and drop categories that do not occur, as R does."""
    out = rows.infer_objects()
    for column in out.columns:
        if isinstance(out[column].dtype, pd.CategoricalDtype):
            out[column] = out[column].cat.remove_unused_categories()
    return out


def _context() -> dict[str, Any]:
    from formulaic.transforms import TRANSFORMS

    functions = ("sqrt", "log1p", "expm1", "sin", "cos", "tan", "tanh", "floor", "ceil", "abs")
    numpy: dict[str, Any] = {f: getattr(np, f) for f in functions}
    contrasts = TRANSFORMS["C"]
    return numpy | {"factor": contrasts, "ordered_": contrasts, "logical_": contrasts}


def mark(text: str, name: str) -> str:
    """Return the formula with a mark under `name`, where it stands there as a whole."""
    at = re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text)
    return marked(text, at.start(), len(name)) if at else text


def _cannot_compute(source: str, text: str, error: Exception) -> DynstatError:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    name = re.search(r"name '(\w+)' is not defined", said) or re.search(r"`([^`]+)`", said)
    token = name.group(1) if name else ""
    mend = said
    if token == "ns":
        mend = "write cr(x, df=3) for a natural spline, bs(x, df=4) for a B-spline"
    return DynstatError(
        "S401",
        "a part of the formula cannot be computed",
        where=mark(text, token if token and token in text else source),
        found=token or source,
        expected="R's operators, functions of numpy, and bs, cr, cc, poly, scale, center, C",
        mend=mend,
    )
