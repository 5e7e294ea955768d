"""The printed summary of a mixed model, laid out as lme4 prints it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .result import LmerResult

#: Fixed effects up to which their correlations are printed, as in lme4.
_CORRELATED = 20


def summary_text(m: LmerResult) -> str:
    """Return what ``summary(m)`` shows in R: criterion, residuals, random effects, fixed effects."""
    kind = "REML" if m.reml else "maximum likelihood"
    lines = [f"Linear mixed model fit by {kind} ['lmerMod']", f"Formula: {m.formula}", ""]
    if m.reml:
        lines += [f"REML criterion at convergence: {m.criterion:.1f}", ""]
    else:
        values = (m.aic, m.bic, m.loglik, m.criterion, m.nobs - m.npar)
        names = ("AIC", "BIC", "logLik", "deviance", "df.resid")
        cells = [f"{v:.1f}" if isinstance(v, float) else str(v) for v in values]
        lines += ["".join(f"{n:>10}" for n in names), "".join(f"{c:>10}" for c in cells), ""]
    if m.design.n:
        scaled = np.quantile(m.scaled_residuals.to_numpy(), [0, 0.25, 0.5, 0.75, 1])
        lines += [
            "Scaled residuals:",
            "".join(f"{n:>9}" for n in ("Min", "1Q", "Median", "3Q", "Max")),
            "".join(f"{v:>9.4f}" for v in scaled),
            "",
        ]
    lines += ["Random effects:"]
    lines += _random(m)
    groups = "; ".join(f"{g}, {q}" for g, q in m.ngroups.items())
    lines += [f"Number of obs: {m.nobs}, groups:  {groups}", ""]
    if len(m.fixef):
        lines += ["Fixed effects:", *_fixed(m)]
    if 1 < len(m.fixef) <= _CORRELATED:
        lines += ["", "Correlation of Fixed Effects:", *_correlations(m)]
    if m.singular or m.design.dropped_columns or m.design.dropped_rows or not m.record.converged:
        lines += [""]
    if m.singular:
        lines += [f"singular fit: {', '.join(m.boundary_terms)} at the boundary"]
    if m.design.dropped_columns:
        lines += [f"dropped columns: {', '.join(m.design.dropped_columns)}"]
    if m.design.dropped_rows:
        lines += [f"({m.design.dropped_rows} observations deleted due to missingness)"]
    if not m.record.converged:
        lines += [f"not converged: {m.record.message}"]
    return "\n".join(lines)


def _random(m: LmerResult) -> list[str]:
    rows = _random_rows(m)
    widths = [max(len(r[c]) for r in rows) for c in range(5)]
    return [(" " + " ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True))).rstrip() for r in rows]


def _random_rows(m: LmerResult) -> list[tuple[str, ...]]:
    shown = [row for row in m.varcorr.itertuples() if row.var2 is None]
    variances = _aligned([float(row.vcov) for row in shown])
    deviations = _aligned([float(row.sdcor) for row in shown])
    rows: list[tuple[str, ...]] = [("Groups", "Name", "Variance", "Std.Dev.", "Corr")]
    last: object = None
    for row, variance, deviation in zip(shown, variances, deviations, strict=True):
        corr = ""
        if row.var1 is not None:
            own = m.varcorr[(m.varcorr["grp"] == row.grp) & (m.varcorr["var2"] == row.var1)]
            corr = " ".join("" if np.isnan(v) else f"{v:.2f}" for v in own["sdcor"])
        group, column = "" if row.grp == last else str(row.grp), "" if row.var1 is None else str(row.var1)
        rows.append((group, column, variance, deviation, corr))
        last = row.grp
    return rows


def summary_html(m: LmerResult) -> str:
    """Return the summary as HTML: one line of the fit, fixed effects, random effects, warnings."""
    kind = "REML criterion" if m.reml else "deviance"
    head = (
        f"<p><b>Linear mixed model</b> <code>{escape(m.formula)}</code><br>{kind} {m.criterion:.1f}, "
        f"{m.nobs} observations, {escape('; '.join(f'{g}: {q}' for g, q in m.ngroups.items()))}</p>"
    )
    fixed = [
        (str(name), f"{estimate:.5g}", f"{error:.5g}", f"{estimate / error:.3f}")
        for name, estimate, error in zip(m.fixef.index, m.fixef, np.sqrt(np.diag(m.vcov)), strict=True)
    ]
    random = _random_rows(m)
    parts = [head]
    if fixed:
        parts.append(_table("Fixed effects", ("", "Estimate", "Std. Error", "t value"), fixed, 1))
    parts.append(_table("Random effects", random[0], random[1:], 2))
    parts += [f"<p>{escape(note)}</p>" for note in m.warnings]
    return "<div>" + "".join(parts) + "</div>"


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """Write a table whose first `words` columns are words, the others numbers."""

    def cells(row: Sequence[str], tag: str) -> str:
        sides = ["left" if i < words else "right" for i in range(len(row))]
        return "".join(
            f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>'
            for cell, side in zip(row, sides, strict=True)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return (
        f"<table><caption>{title}</caption><thead><tr>{cells(head, 'th')}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _aligned(values: list[float], digits: int = 4) -> list[str]:
    """Write numbers with the same decimals, enough for `digits` figures of each, as R's format() does."""
    decimals = 0
    for v in values:
        if v == 0 or not np.isfinite(v):
            continue
        shown = f"{v:.{digits - 1}e}"
        figures = len(shown.split("e")[0].replace(".", "").lstrip("-").rstrip("0")) or 1
        decimals = max(decimals, figures - 1 - int(shown.split("e")[1]))
    if decimals > 8:
        return [f"{v:.{digits}g}" for v in values]
    return [f"{v:.{decimals}f}" for v in values]


def _correlations(m: LmerResult) -> list[str]:
    """Return the lower triangle as lme4 prints it, names cut in their middle to stand over a column."""
    sd = np.sqrt(np.diag(m.vcov))
    correlations = m.vcov.to_numpy() / np.outer(sd, sd)
    names = [str(n) for n in m.fixef.index]
    width = max(len(n) for n in names[1:])
    lines = [" " * width + "".join(f"{_cut(n):>8}" for n in names[:-1])]
    for i, name in enumerate(names[1:], start=1):
        lines.append(name.ljust(width) + "".join(f"{v:>8.3f}" for v in correlations[i, :i]))
    return lines


def _cut(name: str) -> str:
    if name == "(Intercept)":
        return "(Intr)"
    return name if len(name) <= 7 else f"{name[:3]}…{name[-3:]}"


def _fixed(m: LmerResult) -> list[str]:
    se = np.sqrt(np.diag(m.vcov))
    width = max(len(str(n)) for n in m.fixef.index)
    lines = [" " * width + f"{'Estimate':>12}{'Std. Error':>12}{'t value':>9}"]
    for name, estimate, error in zip(m.fixef.index, m.fixef.to_numpy(), se, strict=True):
        lines.append(f"{str(name).ljust(width)}{estimate:>12.5g}{error:>12.5g}{estimate / error:>9.3f}")
    return lines
