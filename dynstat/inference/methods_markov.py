"""What a plan can ask of chains of states. Imports no numpy, as `methods` does not."""

from __future__ import annotations

from typing import Any

from ..metrics.options import LAYER, POSITIVE_INT, QUANTILE, TRAJECTORY, WHOLE, Accepts, is_int
from ..metrics.run_entries import STATES
from ..registry import METHODS, Method, Option

#: States by what they are codes of, in full.
CODES: dict[str, tuple[str, ...]] = {
    "state": STATES,
    "collapse": ("OPEN", "COLLAPSE"),
    "rivalry": ("APART", "RIVALRY"),
}
_EVERY = tuple(name for names in CODES.values() for name in names)
NULLS = ("markov", "markov_group", "markov_shuffle", "depth", "depth_pooled", "depth_markov")
#: Of one state, and of a whole chain.
OF_STATE = ("self_transition", "lift", "occupancy", "exit", "dwell", "stationary")
OF_CHAIN = ("spectral_gap", "entropy_rate")
REOPENING = ("reopening", "end_of_text", "kaplan_meier", "naive", "departure")

_LEVEL = Option(0.95, QUANTILE, "of the two-sided intervals shown")


def _sequences(codes: str = "state", axis: str = "token") -> dict[str, Option]:
    """Return the options that make sequences of states out of a dataset."""
    return {
        "codes": Option(codes, tuple(CODES), "which states: the five, or COLLAPSE, or RIVALRY"),
        "turbulence": Option(1.0, None, "state: ct above it is high; a quantile of the pilot"),
        "branching": Option(0.5, None, "state: H / ln V above it is high; a quantile of the pilot"),
        "synchronisation": Option(
            0.5, None, "state: below it a committed layer is out of step; of the pilot"
        ),
        "commitment": Option(0.5, QUANTILE, "state: least p_(1) of COMMITTED"),
        "alignment": TRAJECTORY["alignment"],
        "enter": Option(0.1, None, "collapse, rivalry: where an episode begins; of the pilot"),
        "leave": Option(0.2, None, "collapse, rivalry: where it ends; of the pilot"),
        "axis": Option(axis, ("token", "layer"), "what one step is"),
        "layer": LAYER,
        "phase": Option("generated", ("generated", "prompt", "all"), "tokens that are taken"),
        "tokens": Option(
            "last_prompt" if axis == "layer" else "all",
            ("all", "last_prompt"),
            "axis layer: a sequence a token, or at the last prompt token alone",
        ),
        "until": Option("end_of_text", ("end_of_text", "budget"), "where a run ends"),
        "model": Option("", doc="this model alone; empty for all"),
        "unit": Option("prompt", ("prompt", "template", "category", "model"), "what is exchangeable"),
    }


def _is_order(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and 2 <= len(value) <= 8
        and len(set(map(str, value))) == len(value)
        and all(v in _EVERY for v in value)
    )


def _are_nulls(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(v in NULLS for v in value)


def _add(name: str, function: str, summary: str, reference: str, **rest: Any) -> None:
    origin = rest.pop("origin", "dynstat")
    METHODS.add(
        Method(
            f"markov.{name}",
            1,
            f"dynstat.markov.methods:{function}",
            summary=summary,
            origin=origin,
            reference=reference,
            metrics=("state", "collapse", "rivalry"),
            takes_outcome=False,
            **rest,
        )
    )


_add(
    "chain",
    "chain_of_states",
    "First-order chain of states: self-transitions, their lift over occupancy, transitions.",
    "maximum likelihood: Anderson and Goodman 1957, Ann. Math. Stat. 28: 89-110; bootstrap of whole units",
    origin="published",
    options={
        **_sequences(),
        "interval": Option("bootstrap", ("bootstrap", "sandwich"), "of whole units"),
        "replicates": Option(1000, POSITIVE_INT, "bootstrap samples of units"),
        "lag": Option(1, POSITIVE_INT, "steps between the two ends of a transition"),
        "surrogates": Option(199, WHOLE, "of the test that stays have no memory; 0 for none"),
        "level": _LEVEL,
    },
    quantities=(
        *(f"{q}.{s}" for q in (*OF_STATE, "stay") for s in _EVERY),
        *(f"transition.{a}.{b}" for names in CODES.values() for a in names for b in names),
        *OF_CHAIN,
    ),
    null_draws="surrogates",
)
_add(
    "transition_distance",
    "distance_of_models",
    "Largest distance between the transition matrices of models, noise taken off.",
    "mean total variation of a step; null: labels of models permuted within every unit",
    options={
        **{k: v for k, v in _sequences().items() if k != "model"},
        "permutations": Option(999, POSITIVE_INT, "draws of the null"),
        "replicates": Option(999, POSITIVE_INT, "bootstrap samples of units"),
        "level": _LEVEL,
    },
    quantities=("largest_distance",),
    null_draws="permutations",
)
_add(
    "stationarity",
    "stationarity",
    "How far transition probabilities change along the sequences, noise taken off.",
    "Anderson and Goodman 1957, Ann. Math. Stat. 28: 89-110; null: blocks of a unit change places",
    options={
        **_sequences(),
        "blocks": Option(3, Accepts(lambda v: is_int(v) and v >= 2, "a whole number from 2"), "equal parts"),
        "within": Option("model", ("model", "category", ""), "tables are made within its levels and summed"),
        "statistic": Option("Pearson", ("Pearson", "G"), "of the test"),
        "permutations": Option(999, POSITIVE_INT, "draws of the null"),
        "replicates": Option(999, POSITIVE_INT, "bootstrap samples of units"),
        "level": _LEVEL,
    },
    quantities=("cramers_v", "total_variation"),
    null_draws="permutations",
)
_add(
    "reopening",
    "cycles",
    "Probability that a stay in a state is left within h tokens, end of text competing.",
    "Aalen and Johansen 1978, Scand. J. Stat. 5: 141-150; the null without memory is dynstat's",
    options={
        **{k: v for k, v in _sequences("collapse").items() if k not in ("axis", "tokens", "until")},
        "state": Option("COLLAPSE", _EVERY, "the state that is left"),
        "horizon": Option(8, POSITIVE_INT, "h, in tokens"),
        "by": Option("", ("", "model", "category"), "estimates for every level too"),
        "null": Option("within_runs", ("within_runs", "simulated"), "which chain without memory gives p"),
        "alternative": Option("two-sided", ("two-sided", "greater", "less"), "of that p"),
        "replicates": Option(999, POSITIVE_INT, "bootstrap samples of units"),
        "permutations": Option(999, POSITIVE_INT, "draws of each null"),
        "level": _LEVEL,
    },
    quantities=REOPENING,
    null_draws="permutations",
)
_add(
    "motifs",
    "conserved_motifs",
    "Number of n-grams of states that every model shows more often than sequences without grammar do.",
    "claim D1; exchange of states between sequences: Strona et al. 2014, Nat. Commun. 5: 4114",
    options={
        **_sequences(axis="layer"),
        "n": Option(3, Accepts(lambda v: is_int(v) and 2 <= v <= 5, "2 to 5"), "states in a motif"),
        "nulls": Option(["markov", "depth"], Accepts(_are_nulls, *NULLS), "each must be beaten"),
        "minimum": Option(1.2, None, "least enrichment"),
        "fdr": Option(0.05, QUANTILE, "largest q in every model"),
        "scale": Option("count", ("count", "share"), "counts, or shares among the n-grams"),
        "within": Option("", ("", "category"), "depth nulls exchange states within its levels only"),
        "surrogates": Option(1999, POSITIVE_INT, "of each null"),
        "replicates": Option(499, POSITIVE_INT, "bootstrap samples of units"),
        "level": _LEVEL,
    },
    quantities=("conserved", *(f"conserved.{null}" for null in NULLS)),
    null_draws="surrogates",
)
_add(
    "first_visits",
    "path",
    "Share of sequences that first meet states in an order, less its share under a depth trend alone.",
    "claim D2; exchange of states between sequences: Strona et al. 2014, Nat. Commun. 5: 4114",
    options={
        **_sequences(axis="layer"),
        "order": Option(
            ["SURFACE_BRANCHING", "STABLE", "COMMITTED"],
            Accepts(_is_order, "two to eight different states"),
            "by full name",
        ),
        "null": Option("depth", NULLS, "what is taken off"),
        "within": Option("", ("", "category"), "depth nulls exchange states within its levels only"),
        "surrogates": Option(999, POSITIVE_INT, "draws of the null"),
        "replicates": Option(999, POSITIVE_INT, "bootstrap samples of units"),
        "level": _LEVEL,
    },
    quantities=("path_share", "difference"),
    null_draws="surrogates",
)
