"""Methods of this study; nothing but their registration stands here, and no import but the registry."""

from __future__ import annotations

from dynstat.registry import METHODS, Method, Option

METHODS.add(
    Method(
        name="conditional_signatures.null_z",
        version=1,
        path="dynstat.analyses.conditional_signatures.null_z:null_z",
        summary="Per model, ratio_norm against what runs of the same length give by themselves.",
        origin="dynstat",
        reference="length-matched null of dynstat.metrics.nulls; percentile bootstrap over prompts",
        options={
            "replicates": Option(199, None, "draws of the null a run"),
            "bootstrap": Option(999, None, "bootstrap samples of prompts"),
            "alpha": Option(0.05, None, "a run is beyond the null where its Monte-Carlo p is at most this"),
        },
        metrics=("ratio_norm", "ratio_norm_z"),
    )
)
METHODS.add(
    Method(
        name="conditional_signatures.signature",
        version=1,
        path="dynstat.analyses.conditional_signatures.signature:signature",
        summary="Per model: median ratio_norm, GD ratio, and the share of points in each of the five states.",
        origin="dynstat",
        reference="definitions of dynstat.metrics; percentile bootstrap over prompts",
        options={
            "turbulence": Option(1.0, None, "ct above it is high; a quantile of the pilot"),
            "branching": Option(0.5, None, "H / ln V above it is high; a quantile of the pilot"),
            "synchronisation": Option(0.5, None, "below it a committed layer is out of step; of the pilot"),
            "bootstrap": Option(999, None, "bootstrap samples of prompts"),
        },
        metrics=("ratio_norm", "gd_ratio", "state"),
    )
)
