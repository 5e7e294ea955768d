"""The built-in analyses that a plan can name. Imports no numpy, so that plans are checked without it."""

from __future__ import annotations

from ..metrics.options import SERIES
from ..registry import METHODS, Method, Option

#: The model of claims A1 to A3.
SHARES_FORMULA = "y ~ 1 + (1|model) + (1|category/prompt) + (1|model:category) + (1|model:prompt)"
SPLIT_FORMULA = SHARES_FORMULA + " + (1|temperature) + (1|model:prompt:temperature)"
#: The model of one category in claim A4.
CATEGORY_FORMULA = "y ~ 1 + (1|model) + (1|prompt) + (1|model:prompt)"

_TERMS = ("model", "category", "category:prompt", "model:category", "model:prompt")
_SPLIT = ("temperature", "model:prompt:temperature")


def _quantities(terms: tuple[str, ...]) -> tuple[str, ...]:
    every = (*terms, "residual")
    return (
        *(f"share.{t}" for t in every),
        *(f"population.share.{t}" for t in every),
        *(f"eta2.{t}" for t in every),
        *(f"omega2.{t}" for t in terms),
    )


def _options(formula: str) -> dict[str, Option]:
    return {
        "formula": Option(formula, doc="intercept terms only; the outcome is called y"),
        "unit": Option("prompt", doc="what the jackknife leaves out"),
        "strata": Option("category", doc="one unit of every stratum is left out at a time"),
        "level": Option(0.95, doc="of the two-sided intervals shown"),
        "population": Option(
            "auto", ("auto", "generalised", "bootstrap", "none"), "how the population's interval is made"
        ),
        "population_replicates": Option(2000, doc="draws in balanced data, and of the chance level"),
        "population_refits": Option(300, doc="draws where every one is a fit (unbalanced data)"),
    }


METHODS.add(
    Method(
        "variance.shares",
        1,
        "dynstat.mixed.methods:variance_shares",
        summary="Shares of variance of a crossed random-effects model, for this panel and for a population.",
        origin="published",
        reference="Searle, Casella, McCulloch 1992, Variance Components; Bates et al. 2015, JSS 67(1)",
        options=_options(SHARES_FORMULA),
        quantities=_quantities(_TERMS),
        required=(("outcome",),),
        simulate="dynstat.mixed.expected:expected_shares",
    )
)
METHODS.add(
    Method(
        "variance.category_contrast",
        1,
        "dynstat.mixed.methods:category_contrast",
        summary="Variance between models within one category of prompts over the mean within the others.",
        origin="dynstat",
        reference="claim A4: every category fitted alone, jackknife over prompts, whole prompts permuted",
        options={
            "contrast": Option("scientific_reasoning", doc="the category held against the others"),
            "formula": Option(CATEGORY_FORMULA, doc="of one category; the outcome is called y"),
            "category": Option("category", doc="column of the categories"),
            "unit": Option("prompt", doc="what the jackknife leaves out and the null permutes"),
            "term": Option("model", doc="the term whose variance is compared"),
            "permutations": Option(999, doc="of whole units between categories"),
            "level": Option(0.95, doc="of the two-sided intervals shown"),
        },
        quantities=("log_ratio",),
        null_draws="permutations",
        required=(("outcome",),),
    )
)
METHODS.add(
    Method(
        "variance.residual_split",
        1,
        "dynstat.mixed.methods:variance_residual_split",
        summary="The same with temperature and model:prompt:temperature as terms; the residual is the seed.",
        origin="dynstat",
        reference="the model of variance.shares with two terms more",
        options=_options(SPLIT_FORMULA),
        quantities=_quantities(_TERMS + _SPLIT),
        required=(("outcome",),),
        simulate="dynstat.mixed.expected:expected_shares",
    )
)
METHODS.add(
    Method(
        "regimes.normalisation",
        1,
        "dynstat.mixed.nominal:regime_normalisation",
        summary="How much of the regime label lies between models (Light and Margolin), ratio_norm raw "
        "minus clipped.",
        origin="dynstat",
        reference="claim A5; Light and Margolin 1971, JASA 66: 534-544; delete-group jackknife over prompts",
        options={
            "mode": Option("published", ("published", "midpoint"), "ranges with UNASSIGNED between, or cuts"),
            "scope": SERIES["scope"],
            "clip": SERIES["clip"],
            "unit": Option("prompt", doc="what the jackknife leaves out"),
            "strata": Option("category", doc="one unit of every stratum is left out at a time"),
            "level": Option(0.95, doc="of the two-sided intervals shown"),
        },
        quantities=(
            *("difference", "eta2.raw", "eta2.clipped", "ari", "changed"),
            *("unassigned.raw", "unassigned.clipped"),
        ),
        required=(("outcome",),),
    )
)
