"""The gap statistic: dispersion within clusters, held against data without clusters, for a choice of k."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from ..inference.estimate import Estimate
from ..inference.resample import Rng, as_generator
from .checks import check_count
from .features import as_features
from .linkage_trees import LINKAGES, cut_tree, linkage_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Labels = NDArray[np.intp]
Method = str | Callable[[Array, int], ArrayLike]

RULES = ("firstSEmax", "Tibs2001SEmax", "globalSEmax", "firstmax", "globalmax")
REFERENCES = ("scaledPCA", "original")


def choose_k(gap: ArrayLike, se: ArrayLike, rule: str = "firstSEmax", factor: float = 1.0) -> int:
    """Return the number of clusters that a rule takes from gaps at k = 1, 2, ..., as R's ``maxSE``.

    ``firstmax``: the first local maximum. ``globalmax``: the largest. ``firstSEmax``, ``globalSEmax``: the
    smallest k within `factor` standard errors of the first local, or the largest, maximum.
    ``Tibs2001SEmax``: the smallest k with gap(k) ≥ gap(k + 1) − factor·se(k + 1).

    Examples
    --------
    >>> [choose_k([0.1, 0.5, 0.45, 0.6], [0.05] * 4, rule) for rule in RULES]
    [2, 2, 4, 2, 4]
    """
    f, s = np.asarray(gap, dtype=np.float64), factor * np.asarray(se, dtype=np.float64)
    if rule not in RULES:
        raise DynstatError("S404", "unknown rule for k", found=rule, expected=" | ".join(RULES))
    if rule == "Tibs2001SEmax":
        return _first(f[:-1] >= (f - s)[1:], f.size)
    k = int(np.argmax(f)) + 1 if rule.startswith("global") else _first(np.diff(f) <= 0, f.size)
    if rule.endswith("SEmax"):
        return _first(f[: k - 1] >= f[k - 1] - s[k - 1], k)
    return k


def _first(mask: NDArray[np.bool_], otherwise: int) -> int:
    return int(np.argmax(mask)) + 1 if mask.any() else otherwise


@dataclass(frozen=True)
class GapStatistic:
    """Gaps by number of clusters. Made by :func:`dynstat.cluster.gap_statistic`; frozen.

    Attributes
    ----------
    table : DataFrame
        A row a k: k, log_w (data), expected_log_w (mean of the references), gap, se, p.drop (of the fall of
        log W from k − 1 to k, against the references).
    k : int
        By `rule`.
    rules : mapping of str to int
        k by every rule.
    """

    table: pd.DataFrame
    k: int
    rule: str
    rules: Mapping[str, int]
    method: str
    references: str
    n: Mapping[str, int]
    seed: int | None
    replicates: int
    item: str

    def estimates(self) -> dict[str, Estimate]:
        """Return ``gap.<k>``; the error of a gap is that of its references, not of the data: no interval."""
        made = {}
        for row in self.table.to_dict("records"):
            key = f"gap.{row['k']}"
            p = {} if np.isnan(row["p.drop"]) else {"p": row["p.drop"]}
            made[key] = Estimate(
                key,
                row["gap"],
                np.nan,
                np.nan,
                0.95,
                "cluster.gap_statistic@1",
                "none",
                self.item,
                dict(self.n),
                seed=self.seed,
                diagnostics={"se": row["se"], "k chosen": self.k, "rule": self.rule},
                null={"name": f"uniform ({self.references})", "replicates": self.replicates} | p,
            )
        return made

    def tidy(self) -> pd.DataFrame:
        """Return a row a k: k, estimate (gap), std.error, log_w, expected_log_w, p.value (of the drop)."""
        return self.table.rename(columns={"gap": "estimate", "se": "std.error", "p.drop": "p.value"})

    def glance(self) -> pd.DataFrame:
        """Return one row: k, rule, and k by every other rule."""
        return pd.DataFrame([{"k": self.k, "rule": self.rule} | {f"k.{r}": v for r, v in self.rules.items()}])

    def plot(self) -> Figure:
        """Draw gaps with standard errors by k.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.gaps import gap_by_k

        return gap_by_k(self)

    def alt_text(self) -> str:
        """Return what the figure shows, in words and numbers."""
        rows = "; ".join(
            f"k = {r['k']}: {r['gap']:.3g} ± {r['se']:.2g}" for r in self.table.to_dict("records")
        )
        return f"Gap statistic by number of clusters, {self.rule} takes {self.k}. {rows}."

    def __str__(self) -> str:
        table = self.table.to_string(index=False, float_format=lambda v: f"{v:.4g}", na_rep="")
        others = ", ".join(f"{r} {k}" for r, k in self.rules.items() if r != self.rule)
        return "\n".join(
            [
                f"Gap statistic [{self.method}], {self.replicates} uniform reference sets "
                f"({self.references})",
                "",
                table,
                "",
                f"number of clusters ({self.rule}): {self.k}; other rules: {others}",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def gap_statistic(
    data: Any,
    method: Method = "ward",
    *,
    k_max: int | None = None,
    references: str | ArrayLike = "scaledPCA",
    null_sets: int = 500,
    rule: str = "firstSEmax",
    factor: float = 1.0,
    power: float = 1.0,
    rng: Rng = 0,
) -> GapStatistic:
    """Choose the number of clusters, one among the answers, by the gap statistic.

    W(k) = ½ Σ over clusters of Σ over pairs of d^power / size (half the paper's, as in R; gaps are the same);
    gap(k) = mean log W(k) of reference sets − log W(k);
    se(k) = sd(log W(k) of reference sets)·√(1 + 1/B).
    As R's ``cluster::clusGap`` and ``maxSE``, their defaults too.

    Parameters
    ----------
    data : DataFrame, Series, DataArray, array, Features or UnitFeatures
    method : str or callable
        A linkage, "kmeans", or a function of (values, k) to labels.
    k_max : int, optional
        At least 2. Default: 10, or half the items where that is less: beyond, clusters of one and two items
        make log W fall without end.
    references : {"scaledPCA", "original"} or array_like, shape (B, items, features)
        Uniform over the range of every principal component (Tibshirani's choice b) or of every feature
        (choice a); or sets drawn elsewhere.
    null_sets : int
        Reference sets, at least 2.
    rule : str
        See :func:`choose_k`.
    factor : float
        Standard errors in the rule.
    power : float
        1 as in R; 2 in the paper.
    rng : Generator or int

    Raises
    ------
    DynstatError
        S403 fewer than four items; S404 arguments; S405 features that do not vary, or clusters of equal items
        only (log W has no value).

    Source: Tibshirani, Walther and Hastie 2001, J. R. Stat. Soc. B 63: 411-423.
    """
    features = as_features(data)
    x = features.values
    n = x.shape[0]
    if n < 4:
        raise DynstatError("S403", f"too few {features.item}s", found=n, expected="at least 4")
    top = max(2, min(10, n // 2)) if k_max is None else check_count("k_max", k_max, 2)
    if top >= n:
        raise DynstatError("S404", "k_max outside its range", found=top, expected=f"2 to {n - 1}")
    if rule not in RULES:
        raise DynstatError("S404", "unknown rule for k", found=rule, expected=" | ".join(RULES))
    if not factor >= 0:
        raise DynstatError("S404", "factor is negative", found=factor, expected="standard errors, from 0")
    generator, seed = as_generator(rng)
    if isinstance(references, str):
        check_count("reference sets", null_sets, 2)
        sets, how = _reference_sets(x, references, null_sets, generator), references
    else:
        sets, how = np.asarray(references, dtype=np.float64), "given"
        if sets.ndim != 3 or sets.shape[1:] != x.shape or len(sets) < 2:
            raise DynstatError(
                "S404",
                "reference sets of another shape",
                found=sets.shape,
                expected=f"(B, {n}, {x.shape[1]})",
            )
    cut = _cutter(method, generator)
    log_w = _log_dispersion(x, cut, top, power)
    if not np.isfinite(log_w).all():
        raise DynstatError(
            "S405",
            "clusters of equal items only",
            found=f"k = {int(np.flatnonzero(~np.isfinite(log_w))[0]) + 1}",
            mend="give a smaller k_max",
        )
    drawn = np.stack([_log_dispersion(z, cut, top, power) for z in sets])
    expected = drawn.mean(axis=0)
    se = drawn.std(axis=0, ddof=1) * np.sqrt(1 + 1 / len(sets))
    gap = expected - log_w
    fall, falls = -np.diff(log_w), -np.diff(drawn, axis=1)
    p = (1 + np.sum(falls >= fall, axis=0)) / (1 + len(sets))
    table = pd.DataFrame(
        {
            "k": np.arange(1, top + 1),
            "log_w": log_w,
            "expected_log_w": expected,
            "gap": gap,
            "se": se,
            "p.drop": [np.nan, *p],
        }
    )
    rules = {r: choose_k(gap, se, r, factor) for r in RULES}
    name = method if isinstance(method, str) else getattr(method, "__name__", "function")
    counts = {f"{features.item}s": n, "features": x.shape[1]}
    return GapStatistic(table, rules[rule], rule, rules, name, how, counts, seed, len(sets), features.item)


def _reference_sets(x: Array, kind: str, null_sets: int, generator: np.random.Generator) -> Array:
    if kind not in REFERENCES:
        raise DynstatError("S404", "unknown references", found=kind, expected=" | ".join(REFERENCES))
    mean = x.mean(axis=0)
    turn = np.linalg.svd(x - mean, full_matrices=False)[2].T if kind == "scaledPCA" else np.eye(x.shape[1])
    z = (x - mean) @ turn
    uniform = generator.random((null_sets, x.shape[0], z.shape[1]))
    return np.asarray((z.min(axis=0) + uniform * np.ptp(z, axis=0)) @ turn.T + mean)


def _cutter(method: Method, generator: np.random.Generator) -> Callable[[Array, int], list[Labels]]:
    """Return a function of (values, k_max) to the labels at k = 2, ..., k_max."""
    if callable(method):
        return lambda x, top: [np.asarray(method(x, k)) for k in range(2, top + 1)]
    if method == "kmeans":
        from .centroids import kmeans

        start = int(generator.integers(2**31))
        return lambda x, top: [kmeans(x, k, rng=start).labels for k in range(2, top + 1)]
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import pdist

    name = linkage_name(method, (*LINKAGES, "kmeans"))

    def cut(x: Array, top: int) -> list[Labels]:
        tree = linkage(pdist(x), name)
        return [cut_tree(tree, k) for k in range(2, top + 1)]

    return cut


def _log_dispersion(x: Array, cut: Callable[[Array, int], list[Labels]], top: int, power: float) -> Array:
    """Return log W(k) for k = 1, ..., top."""
    d = np.zeros((x.shape[0], x.shape[0]))
    for c in range(x.shape[1]):
        d += (x[:, None, c] - x[None, :, c]) ** 2
    d = d if power == 2 else d ** (power / 2)
    d = np.triu(d)
    w = [0.5 * d.sum() / x.shape[0]]
    for labels in cut(x, top):
        code = np.unique(labels, return_inverse=True)[1]
        member = (code[:, None] == np.arange(code.max() + 1)).astype(np.float64)
        within = np.einsum("ic,ij,jc->c", member, d, member, optimize=True)
        w.append(0.5 * float(np.sum(within / member.sum(axis=0))))
    with np.errstate(divide="ignore"):
        return np.log(np.array(w))
