"""Geometry of a trajectory of hidden states: norm, step length, turning angle, and their product ct."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError

Floats = NDArray[np.float64]

STEP_KINDS = ("chord", "angle", "one_minus_cos")
CURVATURE_KINDS = ("rad", "deg", "over_pi", "one_minus_cos", "menger", "difference")
ALIGNMENTS = ("causal", "centred", "incoming", "outgoing")


def state_norm(states: ArrayLike) -> Floats:
    """Return the Euclidean norm of every hidden state.

    Parameters
    ----------
    states : array_like, shape (..., dim)
        Hidden states before the final norm.

    Returns
    -------
    ndarray, shape (...)
        Units of the state; range [0, inf).

    Notes
    -----
    Formula: ``||h||``. Elementary; kept beside the unit-normalised quantities, which hide it.

    Examples
    --------
    >>> state_norm([[3.0, 4.0]]).tolist()
    [5.0]
    """
    h = np.asarray(states, dtype=np.float64)
    return np.sqrt(np.einsum("...d,...d->...", h, h))


def step_length(states: ArrayLike, *, kind: str = "chord", axis: int = -2) -> Floats:
    """Return the distance of every state from the one before it.

    Parameters
    ----------
    states : array_like, shape (..., token, dim)
        Hidden states of one layer along tokens; for steps through depth put layers on `axis`.
    kind : {"chord", "angle", "one_minus_cos", "unnormalised"}
        Chord or geodesic angle between unit vectors, ``1 - cos = chord^2 / 2``, or the length between the
        states as they are.
    axis : int
        Axis along which states follow each other; the dim is always last.

    Returns
    -------
    ndarray, shape (..., token)
        NaN at the first place, and where a state is 0 and has no direction. Chord: [0, 2], dimensionless;
        angle: [0, pi] rad; one_minus_cos: [0, 2]; unnormalised: [0, inf).

    Raises
    ------
    DynstatError
        S404 for an unknown kind or a wrong axis.

    Notes
    -----
    Formula: ``delta_t = ||u_t - u_{t-1}||``, ``u = h / ||h||``. Origin dynstat: Paper 1 of the programme
    publishes L2-normalised states and a step "delta", not the distance.

    Examples
    --------
    >>> step_length([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]]).round(4).tolist()
    [nan, 1.4142, 0.0]
    """
    h = _states(states, axis)
    u = h if kind == "unnormalised" else _unit(h)
    length = state_norm(np.diff(u, axis=-2))
    if kind != "unnormalised":
        length = convert_step(np.minimum(length, 2.0), kind)
    return _restore(_pad(length, h.shape[-2]), axis)


def turning_angle(
    states: ArrayLike, *, eps: float = 1e-6, kind: str = "rad", normalise: bool = True, axis: int = -2
) -> Floats:
    """Return the angle between each step and the step before it.

    Parameters
    ----------
    states : array_like, shape (..., token, dim)
    eps : float
        A step shorter than this has no direction.
    kind : {"rad", "deg", "over_pi", "one_minus_cos", "menger", "difference"}
        Radians, degrees, share of pi, 1 - cos, Menger curvature of the three states (inverse radius of
        their circle), or ``||v_t - v_{t-1}||``.
    normalise : bool
        Unit-normalise the states first; False follows the public code of Hosseini & Fedorenko.
    axis : int
        Axis along which states follow each other.

    Returns
    -------
    ndarray, shape (..., token)
        At t the angle at the vertex ``u_{t-1}``, of ``v_{t-1}`` against ``v_t``: [0, pi] rad. NaN at the
        first two places and where either step is shorter than eps.

    Raises
    ------
    DynstatError
        S404 for an unknown kind or a wrong axis.

    Notes
    -----
    Formula: ``arccos(v_{t-1} . v_t / (||v_{t-1}|| ||v_t||))``, computed as
    ``2 atan2(||a - b||, ||a + b||)`` of the unit steps, which keeps its digits near 0 and pi. Independent
    states give 120 degrees and a random walk 90, so these are the baselines. Source: Hénaff et al. 2019;
    Hosseini & Fedorenko 2023 (arXiv:2311.04930). Origin dynstat: the curvature of Paper 1 is not published.

    Examples
    --------
    >>> turning_angle([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], kind="deg", normalise=False).round(6).tolist()
    [nan, nan, 90.0]
    """
    h = _states(states, axis)
    v = np.diff(_unit(h) if normalise else h, axis=-2)
    length = state_norm(v)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = np.where((length >= eps)[..., None], v / length[..., None], np.nan)
    a, b = unit[..., :-1, :], unit[..., 1:, :]
    angle = _pad(2 * np.arctan2(state_norm(a - b), state_norm(a + b)), h.shape[-2])
    return _restore(convert_angle(angle, kind, step_length=_pad(length, h.shape[-2])), axis)


def convert_step(chord: ArrayLike, kind: str) -> Floats:
    """Return a chord between unit vectors as another distance.

    Parameters
    ----------
    chord : array_like
        In [0, 2].
    kind : {"chord", "angle", "one_minus_cos"}

    Returns
    -------
    ndarray
        ``chord``, ``2 arcsin(chord / 2)`` in [0, pi] rad, or ``chord^2 / 2`` in [0, 2].

    Raises
    ------
    DynstatError
        S404 for an unknown kind.
    """
    d = np.asarray(chord, dtype=np.float64)
    if kind == "chord":
        return d
    if kind == "angle":
        return 2 * np.arcsin(np.clip(d / 2, 0, 1))
    if kind == "one_minus_cos":
        return d**2 / 2
    raise _unknown("kind of step", kind, STEP_KINDS)


def convert_angle(
    angle: ArrayLike, kind: str, *, step_length: ArrayLike | None = None, axis: int = -1
) -> Floats:
    """Return a turning angle as another reading of curvature.

    Parameters
    ----------
    angle : array_like, shape (..., token)
        Radians, the angle of step t against step t-1 at t.
    kind : {"rad", "deg", "over_pi", "one_minus_cos", "menger", "difference"}
    step_length : array_like, shape (..., token)
        Chords; needed by menger and difference.
    axis : int
        The token axis.

    Returns
    -------
    ndarray, shape (..., token)
        [0, pi], [0, 180], [0, 1], [0, 2]; menger and difference [0, inf). Menger is NaN where the third
        state returns to the first, which has no circle.

    Raises
    ------
    DynstatError
        S404 for an unknown kind, or one that needs steps and got none.

    Notes
    -----
    With a, b the two steps and theta the angle, the third side is ``c^2 = a^2 + b^2 + 2 a b cos(theta)``,
    Menger's curvature ``4 Area / (a b c) = 2 sin(theta) / c``, and
    ``||v_t - v_{t-1}||^2 = a^2 + b^2 - 2 a b cos(theta)``.
    """
    theta = np.asarray(angle, dtype=np.float64)
    if kind == "rad":
        return theta
    if kind == "deg":
        return np.degrees(theta)
    if kind == "over_pi":
        return theta / np.pi
    if kind == "one_minus_cos":
        return 1 - np.cos(theta)
    if kind not in CURVATURE_KINDS:
        raise _unknown("kind of curvature", kind, CURVATURE_KINDS)
    if step_length is None:
        raise DynstatError("S404", f"curvature {kind!r} needs the step lengths", mend="pass step_length=")
    b = np.asarray(step_length, dtype=np.float64)
    a = _shift(b, 1, axis)
    turn = 2 * a * b * np.cos(theta)
    if kind == "difference":
        return np.sqrt(np.maximum(a**2 + b**2 - turn, 0))
    c = np.sqrt(np.maximum(a**2 + b**2 + turn, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(c > 1e-12 * (a + b), 2 * np.sin(theta) / c, np.nan)


def ct(
    step_length: ArrayLike,
    turning_angle: ArrayLike,
    *,
    alignment: str = "causal",
    eps: float = 1e-6,
    step: str = "chord",
    curvature: str = "rad",
    axis: int = -1,
) -> Floats:
    """Return ct, step length times turning angle, from the two stored series.

    Parameters
    ----------
    step_length : array_like, shape (..., token)
        Chords; ``s_t`` is the step into state t.
    turning_angle : array_like, shape (..., token)
        Radians; ``a_t`` is the angle at state t-1, of the step into it against the step out of it.
    alignment : {"causal", "centred", "incoming", "outgoing"}
        Which step, and where the product stands:

        - causal: ``ct_t = s_t a_t``, the step out of the vertex, at the newest token (uses t-2..t);
        - outgoing: ``ct_t = s_{t+1} a_{t+1}``, the same products, each at its vertex (uses t-1..t+1);
        - incoming: ``ct_t = s_t a_{t+1}``, the step into the vertex, at the vertex;
        - centred: ``ct_t = (s_t + s_{t+1}) / 2 * a_{t+1}``, the mean of both, at the vertex.
    eps : float
        ct is 0 where its step is shorter, though the angle is undefined there.
    step : {"chord", "angle", "one_minus_cos"}
    curvature : {"rad", "deg", "over_pi", "one_minus_cos", "menger", "difference"}
    axis : int
        The token axis.

    Returns
    -------
    ndarray, shape (..., token)
        [0, 2 pi] with chord and rad. NaN where one of the two steps of the vertex does not exist: the first
        two tokens (causal), the first and the last (others). NaN too where the step is at least eps and
        the other one is not: movement after a standstill has no angle.

    Raises
    ------
    DynstatError
        S404 for an unknown option.

    Notes
    -----
    Formula: ``ct_t = delta_t * curvature_t``, published (Paper 1) without distance, curvature or alignment;
    these are dynstat's. Alignment alone moves a run between regimes: an attention-sink-like first state
    gives a ratio of about 5 with the incoming step and 1.1 with the outgoing.

    Examples
    --------
    >>> ct([float("nan"), 1.0, 0.5, 0.0], [float("nan"), float("nan"), 2.0, float("nan")]).tolist()
    [nan, nan, 1.0, 0.0]
    """
    chord = np.asarray(step_length, dtype=np.float64)
    angle = np.asarray(turning_angle, dtype=np.float64)
    if alignment not in ALIGNMENTS:
        raise _unknown("alignment", alignment, ALIGNMENTS)
    bend = convert_angle(angle, curvature, step_length=chord, axis=axis)
    into, out = _shift(chord, 1, axis), chord
    if alignment in ("causal", "outgoing"):
        delta = convert_step(out, step)
        frozen = out < eps
    elif alignment == "incoming":
        delta = convert_step(into, step)
        frozen = into < eps
    else:
        delta = (convert_step(into, step) + convert_step(out, step)) / 2
        frozen = (into + out) / 2 < eps
    defined = np.isfinite(into) & np.isfinite(out)
    product = np.where(defined, np.where(frozen, 0.0, delta * bend), np.nan)
    # Everything above stands at the newest token; the vertex is one token earlier.
    return product if alignment == "causal" else _shift(product, -1, axis)


def _states(states: ArrayLike, axis: int) -> Floats:
    h = np.asarray(states, dtype=np.float64)
    if h.ndim < 2 or axis in (-1, h.ndim - 1) or not -h.ndim <= axis < h.ndim:
        raise DynstatError(
            "S404",
            "states need an axis along which they follow each other, and the dim last",
            found=f"shape {h.shape}, axis {axis}",
            expected="shape (..., token, dim)",
        )
    return np.moveaxis(h, axis, -2)


def _restore(series: Floats, axis: int) -> Floats:
    # `axis` counts with the dim still there; without it, negative axes are one closer to the end.
    return np.moveaxis(series, -1, axis + 1 if axis < 0 else axis)


def _unit(h: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return h / state_norm(h)[..., None]


def _pad(series: Floats, size: int) -> Floats:
    front = np.full((*series.shape[:-1], size - series.shape[-1]), np.nan)
    return np.concatenate([front, series], axis=-1)


def _shift(x: Floats, by: int, axis: int) -> Floats:
    out = np.full_like(x, np.nan)
    there: list[Any] = [slice(None)] * x.ndim
    here = list(there)
    if by > 0:
        there[axis], here[axis] = slice(by, None), slice(None, -by)
    else:
        there[axis], here[axis] = slice(None, by), slice(-by, None)
    out[tuple(there)] = x[tuple(here)]
    return out


def _unknown(what: str, found: str, allowed: tuple[str, ...]) -> DynstatError:
    return DynstatError("S404", f"unknown {what} {found!r}", found=found, expected=" | ".join(allowed))
