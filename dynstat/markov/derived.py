"""What follows from a transition matrix: batched over any leading axes, so that replicates cost one call.

A state that a matrix has never visited has a row of NaN and no entries in its column. It takes no part: its
stationary share is 0, passages from and to it are NaN, and the other states are as if it did not exist. A
state that is entered and has no row (seen only where sequences end) leaves the chain undefined: NaN
throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Structure(NamedTuple):
    """What kind of chain a matrix is; arrays over the leading axes.

    ``seen``: states with a row, shape (..., K). ``defined``: no state is entered that lacks a row.
    ``irreducible``: every seen state reaches every other. ``classes``: number of closed classes.
    ``aperiodic``: irreducible and of period 1, hence ergodic.
    """

    seen: Mask
    defined: Mask
    irreducible: Mask
    classes: NDArray[np.intp]
    aperiodic: Mask


def transition_matrix(counts: ArrayLike) -> Array:
    """Return counts over their row sums, the maximum-likelihood estimate; NaN rows where a row is empty.

    Parameters
    ----------
    counts : array_like, shape (..., K, K)

    Examples
    --------
    >>> transition_matrix([[3, 1], [0, 0]]).tolist()
    [[0.75, 0.25], [nan, nan]]
    """
    n = np.asarray(counts, dtype=np.float64)
    total = n.sum(axis=-1, keepdims=True)
    return np.divide(n, total, out=np.full(n.shape, np.nan), where=total > 0)


def log_likelihood(counts: ArrayLike) -> Array:
    """Return Σ n_ij ln p_ij at the maximum-likelihood estimate, cells without events counting 0.

    Given the first state of every sequence. R's markovchain 0.9.1 returns NaN or −Inf where a cell is empty.
    """
    n = np.asarray(counts, dtype=np.float64)
    p = transition_matrix(n)
    terms = np.where(n > 0, n * np.log(np.where(n > 0, p, 1.0)), 0.0)
    return np.asarray(terms.sum(axis=(-2, -1)))


def structure(matrix: ArrayLike) -> Structure:
    """Return what kind of chain a matrix is.

    Parameters
    ----------
    matrix : array_like, shape (..., K, K)
    """
    p = np.asarray(matrix, dtype=np.float64)
    k = p.shape[-1]
    seen = ~_any(np.isnan(p), -1)
    linked = (np.nan_to_num(p) > 0) & seen[..., None]
    defined = ~_any(linked & ~seen[..., None, :], (-2, -1)) & _any(seen, -1)
    reach = _closure(linked)
    both = seen[..., None] & seen[..., None, :]
    irreducible = defined & _all(reach | ~both, (-2, -1))
    mutual = reach & np.swapaxes(reach, -1, -2)
    closed = seen & _all(~reach | mutual, -1)
    # A closed class is counted once: by its first member.
    first = ~_any(mutual & (np.arange(k) < np.arange(k)[:, None]), -1)
    # An irreducible chain has period 1 exactly where a power, here the K²-th or later, has no zero.
    power, steps = linked, 1
    while steps < k * k:
        power, steps = _product(power, power), 2 * steps
    aperiodic = irreducible & _all(power | ~both, (-2, -1))
    return Structure(seen, defined, irreducible, (closed & first).sum(axis=-1), aperiodic)


def stationary(matrix: ArrayLike) -> Array:
    """Return the stationary distribution π, πP = π.

    Parameters
    ----------
    matrix : array_like, shape (..., K, K)

    Returns
    -------
    ndarray, shape (..., K)
        NaN where there is none or more than one (two closed classes). Transient states have 0.

    Examples
    --------
    >>> stationary([[0.9, 0.1], [0.3, 0.7]]).round(6).tolist()
    [0.75, 0.25]
    """
    filled = _filled(matrix)
    k = filled.shape[-1]
    p = filled.reshape(-1, k, k)
    system = np.swapaxes(np.eye(k) - p, -1, -2).copy()
    system[..., -1, :] = 1.0
    right = np.zeros((*p.shape[:-1], 1))
    right[..., -1, 0] = 1.0
    ok = _all(np.isfinite(p), (-2, -1))
    # All entries above 0: one class, no search needed.
    unsure = ok & ~_all(p > 0, (-2, -1))
    if unsure.any():
        ok[unsure] = structure(p[unsure]).classes == 1
    out = np.full(p.shape[:-1], np.nan)
    if ok.any():
        out[ok] = np.linalg.solve(system[ok], right[ok])[..., 0]
        # Transient states come out as rounding errors of either sign.
        out[ok] = np.where(out[ok] < 1e-14, 0.0, out[ok])
    return out.reshape(filled.shape[:-1])


def eigenvalue_moduli(matrix: ArrayLike) -> Array:
    """Return |λ| in falling order, shape (..., K); a state never visited adds a 0."""
    filled = _filled(matrix)
    p = filled.reshape(-1, *filled.shape[-2:])
    out = np.full(p.shape[:-1], np.nan)
    ok = _all(np.isfinite(p), (-2, -1))
    if ok.any():
        out[ok] = -np.sort(-np.abs(np.linalg.eigvals(p[ok])), axis=-1)
    return out.reshape(filled.shape[:-1])


def implied_timescales(matrix: ArrayLike, lag: int = 1, *, moduli: Array | None = None) -> Array:
    """Return −lag / ln |λ_k| for k = 2..K in steps, falling; infinity where |λ| = 1.

    Parameters
    ----------
    matrix : array_like, shape (..., K, K)
        Of transitions over `lag` steps.
    lag : int
    moduli : ndarray, optional
        From :func:`eigenvalue_moduli`, where that was computed before.
    """
    values = (eigenvalue_moduli(matrix) if moduli is None else moduli)[..., 1:]
    values = np.where(values > 1 - 1e-12, 1.0, values)
    with np.errstate(divide="ignore"):
        # Written so that 0 gives +0 and 1 gives +inf.
        return np.asarray(lag / np.abs(np.log(values)))


def spectral_gap(matrix: ArrayLike, *, moduli: Array | None = None) -> Array:
    """Return 1 − |λ₂|, in [0, 1]; 0 where the chain is periodic or falls apart."""
    values = eigenvalue_moduli(matrix) if moduli is None else moduli
    return np.maximum(1 - values[..., 1], 0.0)


def mean_first_passage(matrix: ArrayLike, *, pi: Array | None = None) -> Array:
    """Return the mean number of steps until j is first reached from i, 0 on the diagonal.

    M_ij = (Z_jj − Z_ij) / π_j with Z = (I − P + 1π)⁻¹ where the chain is irreducible, else the solution of
    m = 1 + Pm over the states that reach j for certain.

    Parameters
    ----------
    matrix : array_like, shape (..., K, K)
    pi : ndarray, optional
        The stationary distribution, where known.

    Returns
    -------
    ndarray, shape (..., K, K)
        Steps. Infinity where j may never be reached, NaN from and to a state never visited.

    Source: Kemeny and Snell 1976, Finite Markov Chains, theorem 4.4.7.
    """
    raw = np.asarray(matrix, dtype=np.float64)
    k = raw.shape[-1]
    p = _filled(raw).reshape(-1, k, k)
    out = np.full(p.shape, np.nan)
    easy = _all(p > 0, (-2, -1))
    hard = _all(np.isfinite(p), (-2, -1)) & ~easy
    if easy.any():
        share = (stationary(p) if pi is None else pi.reshape(-1, k))[easy][:, None, :]
        z = np.linalg.inv(np.eye(k) - p[easy] + share)
        diagonal = np.diagonal(z, axis1=-2, axis2=-1)[..., None, :]
        out[easy] = (diagonal - z) / share
        out[easy] *= 1 - np.eye(k)
    if hard.any():
        q = p[hard]
        for j in range(k):
            out_j = _passage_to(q, j)
            out[hard, :, j] = out_j
    # Never visited: no passage from or to it.
    unseen = _any(np.isnan(raw), -1)
    return np.where(unseen[..., None] | unseen[..., None, :], np.nan, out.reshape(raw.shape))


def _passage_to(p: Array, j: int) -> Array:
    k = p.shape[-1]
    linked = p > 0
    linked[:, j, :] = False
    reach = _closure(linked) | np.eye(k, dtype=bool)
    # Every state on the way must still be able to reach j.
    certain = _all(~reach | reach[..., j][:, None, :], -1)
    inner = np.asarray(certain).copy()
    inner[:, j] = False
    system = np.eye(k) - np.where(inner[..., None] & inner[:, None, :], p, 0.0)
    time = np.linalg.solve(system, inner.astype(np.float64)[..., None])[..., 0]
    return np.asarray(np.where(certain, time, np.inf))


def recurrence_time(matrix: ArrayLike, *, pi: Array | None = None) -> Array:
    """Return the mean number of steps between visits, 1/π_i, shape (..., K); infinity for transient states.

    NaN for a state never visited, and where there is no one stationary distribution.
    """
    raw = np.asarray(matrix, dtype=np.float64)
    share = stationary(raw) if pi is None else pi
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(_any(np.isnan(raw), -1), np.nan, 1 / share))


def dwell(matrix: ArrayLike) -> Array:
    """Return the mean stay 1 / (1 − p_ii) in steps, shape (..., K); infinity for an absorbing state.

    The stay of the memoryless chain: semi-Markov stays are estimated from the stays themselves.
    """
    own = np.diagonal(np.asarray(matrix, dtype=np.float64), axis1=-2, axis2=-1)
    with np.errstate(divide="ignore"):
        return np.asarray(1 / (1 - own))


def entropy_rate(matrix: ArrayLike, *, pi: Array | None = None) -> Array:
    """Return −Σ π_i Σ p_ij ln p_ij in nats a step, shape (...); between 0 and ln K."""
    raw = np.asarray(matrix, dtype=np.float64)
    share = stationary(raw) if pi is None else pi
    p = np.nan_to_num(raw)
    rows = -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0), axis=-1)
    return np.asarray(np.sum(share * rows, axis=-1))


def occupancy(counts: ArrayLike) -> Array:
    """Return the share of transitions that end in every state, shape (..., K); NaN without a transition."""
    n = np.asarray(counts, dtype=np.float64)
    total = n.sum(axis=(-2, -1))[..., None]
    return np.divide(n.sum(axis=-2), total, out=np.full(n.shape[:-1], np.nan), where=total > 0)


def lift(counts: ArrayLike) -> Array:
    """Return self-transition minus occupancy, shape (..., K).

    lift_i = n_ii / n_i· − n_·i / n··: occupancy is the share of transitions that end in i. Where the next
    state does not depend on the present one, both are equal: a self-transition says nothing without it. Units
    that differ in occupancy lift it too, without any dependence within a unit.

    Parameters
    ----------
    counts : array_like, shape (..., K, K)

    Returns
    -------
    ndarray, shape (..., K)
        In (−1, 1); NaN for a state that is never left or stayed in.

    Notes
    -----
    Origin dynstat.
    """
    own = np.diagonal(transition_matrix(counts), axis1=-2, axis2=-1)
    return np.asarray(own - occupancy(counts))


class Absorption(NamedTuple):
    """Where a chain ends: ``probability`` (..., K, A) by absorbing state, ``steps`` (..., K) until then."""

    probability: Array
    steps: Array


def absorption(matrix: ArrayLike, absorbing: Sequence[int]) -> Absorption:
    """Return the probability to end in each absorbing state, and the mean number of steps until then.

    Parameters
    ----------
    matrix : array_like, shape (..., K, K)
    absorbing : sequence of int
        Positions. States that can be left are taken as if they could not: then it is the first one reached.

    Returns
    -------
    Absorption
        From an absorbing state: 1 for itself, 0 steps. Steps are infinite where none may be reached. NaN from
        a state never visited.

    Raises
    ------
    DynstatError
        S404 for no state or a position outside.
    """
    raw = np.asarray(matrix, dtype=np.float64)
    k = raw.shape[-1]
    at = np.unique(np.asarray(absorbing, dtype=np.intp))
    if not at.size or at[0] < 0 or at[-1] >= k:
        raise DynstatError("S404", "no such absorbing state", found=list(absorbing), expected=f"0 to {k - 1}")
    # Absorbing states need no row.
    p = raw.copy()
    p[..., at, :] = np.eye(k)[at]
    kind = structure(p)
    ok = kind.defined
    p = np.nan_to_num(p)
    reach = _closure(p > 0) | np.eye(k, dtype=bool)
    ends = _any(reach[..., at], -1)
    inner = ends.copy()
    inner[..., at] = False
    system = np.eye(k) - np.where(inner[..., None] & inner[..., None, :], p, 0.0)
    right = np.where(inner[..., None], p[..., at], 0.0)
    right[..., at, :] = np.eye(at.size)
    both = np.linalg.solve(system, np.concatenate([right, inner[..., None].astype(np.float64)], axis=-1))
    certain = _all(~reach | ends[..., None, :], -1)
    steps = np.where(certain, both[..., -1], np.inf)
    valid = kind.seen & ok[..., None]
    return Absorption(
        np.where(valid[..., None], both[..., :-1], np.nan), np.asarray(np.where(valid, steps, np.nan))
    )


def lumpability(counts: ArrayLike, groups: Sequence[int]) -> Array:
    """Return how far a grouping of states is from being a Markov chain of its own, shape (...).

    A chain can be lumped where all states of a group go to every group with equal probability (Kemeny and
    Snell). Distance = Σ_i w_i ½ Σ_B |p_iB − p_g(i)B|, w_i the share of transitions that leave i, p_iB the
    probability to go from i to group B, p_gB that of i's whole group: a total variation in [0, 1), 0 where
    lumping is exact. Sampling alone lifts it above 0.

    Parameters
    ----------
    counts : array_like, shape (..., K, K)
    groups : sequence of int
        Group of every state, shape (K,).

    Raises
    ------
    DynstatError
        S407 where `groups` has another length.

    Notes
    -----
    Origin dynstat (the condition is published, the distance is ours).
    """
    n = np.asarray(counts, dtype=np.float64)
    labels, code = np.unique(np.asarray(groups), return_inverse=True)
    if code.size != n.shape[-1]:
        raise DynstatError(
            "S407",
            "groups do not fit the states",
            found=f"{code.size} groups",
            expected=f"{n.shape[-1]} states",
        )
    member = (code[:, None] == np.arange(labels.size)).astype(np.float64)
    to = n @ member
    own = np.nan_to_num(_shares(to))
    whole = np.nan_to_num(_shares(np.swapaxes(member, 0, 1) @ to))[..., code, :]
    leaving = n.sum(axis=-1)
    total = leaving.sum(axis=-1)
    distance = np.sum(leaving * 0.5 * np.abs(own - whole).sum(axis=-1), axis=-1)
    return np.asarray(np.divide(distance, total, out=np.full(total.shape, np.nan), where=total > 0))


def _shares(n: Array) -> Array:
    total = n.sum(axis=-1, keepdims=True)
    return np.divide(n, total, out=np.full(n.shape, np.nan), where=total > 0)


def _filled(matrix: ArrayLike) -> Array:
    """Return the matrix with rows for states never visited; NaN throughout where it is not defined.

    Such a state goes to the seen ones with equal chance. Nothing enters it, so it changes no other state and
    adds an eigenvalue of 0.
    """
    p = np.asarray(matrix, dtype=np.float64)
    unseen = _any(np.isnan(p), -1)
    if not unseen.any():
        return p
    seen = (~unseen).astype(np.float64)
    entered = (np.nan_to_num(p).sum(axis=-2) > 0) & unseen
    count = seen.sum(axis=-1)
    # A seen state's column holds entries of seen rows only; rows of unseen states are NaN and drop out above.
    spread = np.divide(seen, count[..., None], out=np.full(seen.shape, np.nan), where=count[..., None] > 0)
    out = np.where(unseen[..., None], spread[..., None, :], p)
    return np.where(_any(entered, -1)[..., None, None], np.nan, out)


def _any(x: Mask, axis: int | tuple[int, int]) -> Mask:
    return np.asarray(np.any(x, axis=axis))


def _all(x: Mask, axis: int | tuple[int, int]) -> Mask:
    return np.asarray(np.all(x, axis=axis))


def _product(a: Mask, b: Mask) -> Mask:
    return np.asarray((a.astype(np.float32) @ b.astype(np.float32)) > 0)


def _closure(linked: Mask) -> Mask:
    """Return which states are reached in one step or more."""
    k = linked.shape[-1]
    reach, steps = linked, 1
    while steps < k:
        reach = reach | _product(reach, reach)
        steps *= 2
    return reach
