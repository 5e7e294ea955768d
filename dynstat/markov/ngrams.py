"""Count n-grams of run-length-collapsed sequences, for many surrogates at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
# Beyond this many possible n-grams only those are kept that the data hold.
_KEPT = 400


@dataclass(frozen=True)
class Alphabet:
    """The n-grams that are counted: `codes` (M, n), and where the number of an n-gram is found in them."""

    k: int
    n: int
    codes: NDArray[np.int8]
    lookup: Indices

    @property
    def possible(self) -> int:
        """Number of possible n-grams, K(K − 1)ⁿ⁻¹: none has the same state twice in a row."""
        return int(self.k * (self.k - 1) ** (self.n - 1))

    @classmethod
    def of(cls, codes: NDArray[np.int8], k: int, n: int) -> Alphabet:
        """Return all possible n-grams, or those that occur in `codes` (rows, T) where there are very many."""
        if k**n > 1 << 24:
            raise DynstatError("S404", "too many n-grams", found=f"{k} states, n = {n}", mend="a smaller n")
        if k * (k - 1) ** (n - 1) <= _KEPT:
            grams = [g for g in itertools.product(range(k), repeat=n) if all(a != b for a, b in _pairs(g))]
        else:
            found = np.unique(_windows(codes[None], k, n)[1])
            grams = [tuple(int(i // k ** (n - 1 - j) % k) for j in range(n)) for i in found]
        table = np.array(grams, dtype=np.int8).reshape(-1, n)
        lookup = np.full(k**n, len(table), dtype=np.intp)
        lookup[table.astype(np.intp) @ (k ** np.arange(n - 1, -1, -1))] = np.arange(len(table))
        return cls(k, n, table, lookup)


def _pairs(gram: Iterable[int]) -> Iterable[tuple[int, int]]:
    return itertools.pairwise(gram)


def _windows(codes: NDArray[np.int8], k: int, n: int) -> tuple[Indices, Indices]:
    """Return the row (replicate × sequence) and the number of every n-gram after collapsing runs."""
    size, rows, length = codes.shape
    # A gap after every sequence keeps n-grams from running on into the next.
    flat = np.full((size * rows, length + 1), -1, dtype=np.int8)
    flat[:, :length] = codes.reshape(-1, length)
    line = flat.ravel()
    change = np.ones(line.size, dtype=np.bool_)
    change[1:] = line[1:] != line[:-1]
    at = np.flatnonzero(change)
    symbols = line[at].astype(np.intp)
    stop = symbols.size - n + 1
    if stop <= 0:
        none = np.zeros(0, dtype=np.intp)
        return none, none
    number = np.zeros(stop, dtype=np.intp)
    whole = np.ones(stop, dtype=np.bool_)
    for j in range(n):
        part = symbols[j : j + stop]
        whole &= part >= 0
        number = number * k + part
    return at[:stop][whole] // (length + 1), number[whole]


def count_ngrams(codes: NDArray[np.int8], alphabet: Alphabet, cell: Indices, cells: int) -> NDArray[np.int64]:
    """Count n-grams by cell.

    Parameters
    ----------
    codes : ndarray of int8, shape (R, n, T)
        States; −1 is a gap. Runs are collapsed here.
    alphabet : Alphabet
    cell : ndarray, shape (n,)
        To which cell (unit of a group) a sequence belongs.
    cells : int

    Returns
    -------
    ndarray, shape (R, cells, M + 1)
        The last column is the number of all n-grams.
    """
    size, rows, _ = codes.shape
    m = len(alphabet.codes)
    row, number = _windows(codes, alphabet.k, alphabet.n)
    where = (row // rows) * cells + cell[row % rows]
    # N-grams that are not kept fall into the last column, which then takes the sum of all.
    index = where * (m + 1) + alphabet.lookup[number]
    out = np.bincount(index, minlength=size * cells * (m + 1)).reshape(size, cells, m + 1)
    out[..., m] = out.sum(axis=-1)
    return out
