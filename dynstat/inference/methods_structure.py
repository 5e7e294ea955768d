"""What a plan can ask of the structure of a panel of models. Imports no numpy, as `methods` does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import DynstatError
from ..metrics.options import POSITIVE_INT, QUANTILE, WHOLE, Accepts, is_int
from ..registry import METHODS, Method, Option, parse_metric

#: Populations under which the largest gap is read.
POPULATIONS = ("normal", "uniform", "t3", "exponential")
LINKAGES = ("single", "complete", "average", "weighted", "ward")
#: Indices of fragmentation that stand beside an agreement.
FRAGMENTS = ("clusters_per_item", "outside_largest", "singletons")


def _spec(value: Any, name: str, owner: str) -> dict[str, Any]:
    """Return a metric's specification with its options written out."""
    if not isinstance(value, Mapping) or "@" not in str(value.get("metric", "")):
        raise DynstatError(
            "Y003",
            f"option {name!r} of {owner} names a metric with its version",
            where=owner,
            found=value,
            expected="{metric: name@version, option: value, ...}",
        )
    entry, options = parse_metric(value)
    return {"metric": entry.id, **options}


class MetricOption(Option):
    """An option that holds one metric, checked as an outcome is; an empty mapping for none."""

    def check(self, value: Any, name: str, owner: str) -> Any:
        """Return the specification with every option written out."""
        return {} if value == {} else _spec(value, name, owner)


class MetricsOption(Option):
    """An option that holds a list of metrics."""

    def check(self, value: Any, name: str, owner: str) -> Any:
        """Return the specifications with every option written out."""
        super().check(value, name, owner)
        return [_spec(v, name, owner) for v in value]


def _is_pairs(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(p, list | tuple) and len(p) == 2 and p[0] != p[1] for p in value)
        and all(isinstance(name, str) for p in value for name in p)
    )


_K = Accepts(lambda v: is_int(v) and (v == 0 or v >= 2), "0", "a whole number from 2")
_FROM_2 = Accepts(lambda v: is_int(v) and v >= 2, "a whole number from 2")
_FEATURES: dict[str, Option] = {
    "also": MetricsOption([], doc="further metrics, features beside the outcome"),
    "by": Option("", ("", "category"), "category: every metric is a feature in each category of prompts"),
    "standardize": Option(True, doc="features to mean 0 and standard deviation 1 over models"),
    "unit": Option("prompt", ("prompt", "template"), "what is drawn anew inside the models"),
    "strata": Option("category", ("category", ""), "units are drawn within its levels"),
}
_LINKAGE = Option("ward", LINKAGES, "single at k = 2 and one metric: the cut at the largest gap")
_CUT = Option(2, _K, "clusters; 0 cuts at the largest jump of merge heights, anew in every replicate")
_LEVEL = Option(0.95, QUANTILE, "of the two-sided intervals shown")
_REPLICATES = Option(1000, POSITIVE_INT, "bootstrap samples of units")

METHODS.add(
    Method(
        "structure.agreement",
        1,
        "dynstat.cluster.methods:agreement",
        summary="Adjusted Rand index of a partition of the models, made from run metrics, with their "
        "families or with the partition of another metric.",
        origin="published",
        reference="Hubert and Arabie 1985, J. Classif. 2: 193-218; null: every dealing of the labels",
        options={
            **_FEATURES,
            "linkage": _LINKAGE,
            "k": _CUT,
            "families": Option("", doc="coordinate of models that names their families; or give against"),
            "against": MetricOption({}, doc="the metric of the other partition, cut in the same way"),
            "replicates": _REPLICATES,
            "null_sets": Option(199, WHOLE, "structureless sets beside the fragmentation; 0 for none"),
            "level": _LEVEL,
        },
        quantities=("ari", *(f"fragmentation.{name}" for name in FRAGMENTS)),
        required=(("outcome",), ("families", "against")),
    )
)
METHODS.add(
    Method(
        "structure.pairs",
        1,
        "dynstat.cluster.methods:pairs",
        summary="Whether exactly the named pairs of models stay together when prompts are drawn anew, beyond "
        "structureless data.",
        origin="dynstat",
        reference="claim A7; rotation: Langsrud 2005, Stat. Comput. 15: 53-60; q of Benjamini and Hochberg",
        options={
            **_FEATURES,
            "pairs": Option([], Accepts(_is_pairs, "a list of pairs of model ids"), "the pairs of the claim"),
            "k": Option(2, _FROM_2, "clusters, fixed"),
            "linkage": Option("ward", LINKAGES, "fixed"),
            "frequency": Option(0.95, QUANTILE, "least share of replicates in which a surviving pair is one"),
            "q": Option(0.05, QUANTILE, "largest q of a surviving pair, over all pairs"),
            "replicates": _REPLICATES,
            "null_sets": Option(0, WHOLE, "structureless clouds; 0: as many as let a single pair reach q"),
            "null_replicates": Option(200, POSITIVE_INT, "replicates a cloud"),
            "null": Option("rotation", ("rotation", "gaussian"), "how structureless models are made"),
            "level": _LEVEL,
        },
        quantities=("named.frequency", "others.frequency", "surviving_pairs"),
        null_draws="null_sets",
        required=(("outcome",), ("pairs",)),
    )
)
METHODS.add(
    Method(
        "structure.largest_gap",
        1,
        "dynstat.cluster.methods:largest_gap",
        summary="The gap between two groups of models on one metric, held against one population.",
        origin="dynstat",
        reference="gap over range: Dixon 1950, Ann. Math. Stat. 21: 488-506; the populations are dynstat's",
        options={
            "log": Option(True, doc="gaps of logs: the gap is a factor"),
            "cell": Option("", doc="coordinate of models that names their recipe; its seeds are averaged"),
            "unit": Option(
                "prompt",
                ("prompt", "template", "model"),
                "of the interval; model: seeds of one recipe are replicates, which needs cell",
            ),
            "strata": _FEATURES["strata"],
            "null_sets": Option(99_999, POSITIVE_INT, "samples of every population"),
            "replicates": Option(999, POSITIVE_INT, "bootstrap samples of units"),
            "level": _LEVEL,
        },
        quantities=tuple(
            f"{gap}{left}{population}"
            for gap in ("gap_factor", "gap")
            for left in ("", ".left_out")
            for population in ("", *(f".{p}" for p in POPULATIONS))
        ),
        null_draws="null_sets",
        required=(("outcome",),),
    )
)
METHODS.add(
    Method(
        "structure.stability",
        1,
        "dynstat.cluster.methods:stability",
        summary="Whether clusters of models are more stable than those of structureless data.",
        origin="dynstat",
        reference="Hennig 2007, Comput. Stat. Data Anal. 52: 258-271; the null is dynstat's",
        options={
            **{k: v for k, v in _FEATURES.items() if k not in ("unit", "strata")},
            "linkage": _LINKAGE,
            "k": Option(2, _K, "clusters; 0 cuts at the largest jump of merge heights, in every set anew"),
            "null": Option(
                "rotation",
                ("rotation", "gaussian", "column_permuted", "uniform", "uniform_pca"),
                "kind of structureless data",
            ),
            "statistic": Option("mean", ("mean", "min", "max"), "over the clusters"),
            "null_sets": Option(499, POSITIVE_INT, "structureless sets"),
            "replicates": Option(0, WHOLE, "of the models, in the data and each set; 0: by the method"),
            "level": _LEVEL,
        },
        quantities=("stability",),
        null_draws="null_sets",
        required=(("outcome",),),
    )
)
METHODS.add(
    Method(
        "structure.anomaly",
        1,
        "dynstat.cluster.methods:anomaly",
        summary="Largest distance of a model to the mean of the others, less what exchangeable models reach.",
        origin="dynstat",
        reference="claim V10: values dealt anew to the models within every unit; delete-unit jackknife",
        options={
            **_FEATURES,
            "permutations": Option(999, POSITIVE_INT, "dealings of the values"),
            "level": _LEVEL,
        },
        quantities=("anomaly",),
        null_draws="permutations",
        required=(("outcome",),),
    )
)
