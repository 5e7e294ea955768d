"""Register every definition: names, units, ranges, options, origin, source, formula; imports no numpy.

`origin` is "published" only where the formula itself was seen published. Where the programme names a quantity
and gives no formula, the entry says "dynstat" and its reference says what is known of the published one.
"""

from __future__ import annotations

from ..registry import Option
from . import run_entries
from .options import LAYER, POSITIVE_INT, QUANTILE, SELECTION, TRAJECTORY, Accepts, layer_or_all
from .sources import CURVATURE, PAPER1, REPLY, V20, add

__all__ = ["PI_FLOAT32", "run_entries"]

# The largest angle as float32 stores it, which lies above pi.
PI_FLOAT32 = 3.1415927410125732

# geometry of the states
add(
    "state_norm",
    "trajectory:state_norm",
    summary="Length of the hidden state.",
    origin="dynstat",
    reference="elementary; reported beside every normalised quantity",
    long_name="Euclidean norm of the hidden state",
    valid_min=0.0,
    inputs=("states",),
    formula="||h_t||",
)
add(
    "step_length",
    "trajectory:step_length",
    summary="Distance between consecutive unit-normalised states.",
    origin="dynstat",
    reference=f"{PAPER1}: delta of L2-normalised states, the distance is not published",
    options={
        "kind": Option("chord", ("chord", "angle", "one_minus_cos", "unnormalised")),
    },
    long_name="step length between consecutive unit-normalised hidden states",
    valid_min=0.0,
    valid_max=2.0,
    inputs=("states",),
    undefined=("first_tokens:1",),
    formula="delta_t = ||u_t - u_{t-1}||,  u = h / ||h||",
)
add(
    "turning_angle",
    "trajectory:turning_angle",
    summary="Angle between consecutive steps.",
    origin="dynstat",
    reference=f"{CURVATURE} (there on un-normalised states); the curvature of {PAPER1} is not published",
    options={
        "eps": Option(1e-6),
        "kind": Option("rad", ("rad", "deg", "over_pi", "one_minus_cos", "menger", "difference")),
        "normalise": Option(True, None, "unit-normalise the states first"),
    },
    long_name="turning angle between consecutive steps of the hidden state",
    units="rad",
    valid_min=0.0,
    valid_max=PI_FLOAT32,
    inputs=("states",),
    undefined=("first_tokens:2", "frozen"),
    formula="kappa_t = arccos(v_{t-1} . v_t / (||v_{t-1}|| ||v_t||)),  v_t = u_t - u_{t-1}",
)
add(
    "ct",
    "trajectory:ct",
    summary="Step length times turning angle.",
    origin="dynstat",
    reference=f"{PAPER1}: ct_t = delta_t x curvature_t is published, distance, angle and alignment are not",
    options={k: TRAJECTORY[k] for k in ("alignment", "step", "curvature", "eps")},
    long_name="local trajectory instability ct",
    units="rad",
    valid_min=0.0,
    valid_max=2 * PI_FLOAT32,
    inputs=("step_length", "turning_angle"),
    undefined=("first_tokens:2", "frozen"),
    formula="ct_t = delta_t kappa_t (causal), 0 where delta_t < eps",
)

# next-token distribution of a layer
add(
    "entropy",
    "distribution:entropy",
    summary="Shannon entropy of the next-token distribution.",
    origin="published",
    reference=f"Shannon 1948; named in {V20}, log base not stated (here natural)",
    long_name="entropy of the next-token distribution",
    units="nat",
    valid_min=0.0,
    inputs=("logits",),
    formula="H = -sum_i p_i ln p_i over valid tokens",
)
add(
    "top1_probability",
    "distribution:top1_probability",
    summary="Probability of the most probable token.",
    origin="dynstat",
    reference=f"leader of {V20}",
    long_name="probability of the leading token",
    valid_min=0.0,
    valid_max=1.0,
    inputs=("logits",),
    formula="p_(1)",
)
add(
    "top2_probability",
    "distribution:top2_probability",
    summary="Probability of the second most probable token.",
    origin="dynstat",
    reference=f"runner-up of {V20}",
    long_name="probability of the runner-up token",
    valid_min=0.0,
    valid_max=0.5,
    inputs=("logits",),
    formula="p_(2)",
)
add(
    "margin",
    "distribution:margin",
    summary="Lead of the most probable token over the second.",
    origin="dynstat",
    reference="elementary; a reading of competition as a difference",
    long_name="probability of the leading token less that of the runner-up",
    valid_min=0.0,
    valid_max=1.0,
    inputs=("logits",),
    formula="p_(1) - p_(2)",
)
add(
    "concentration",
    "distribution:concentration",
    summary="Mass on the k most probable tokens.",
    origin="dynstat",
    reference=f"{V20} names concentration on the top candidates; k and formula are not published",
    options={"k": Option(10, POSITIVE_INT, "number of leading tokens")},
    long_name="probability mass of the top-k tokens",
    valid_min=0.0,
    valid_max=1.0,
    inputs=("logits",),
    formula="sum_{i<=k} p_(i)",
)
add(
    "sum_squares",
    "distribution:sum_squares",
    summary="Sum of squared probabilities.",
    origin="dynstat",
    reference="Simpson 1949, Nature 163; chosen by dynstat as a second reading of concentration",
    long_name="sum of squared next-token probabilities",
    valid_min=0.0,
    valid_max=1.0,
    inputs=("logits",),
    formula="sum_i p_i^2",
)
add(
    "competition",
    "operator:competition",
    summary="Runner-up over leader.",
    origin="dynstat",
    reference=f"{V20} names competition between leader and runner-up; its formula is not published",
    long_name="ratio of runner-up to leader probability",
    valid_min=0.0,
    valid_max=1.0,
    inputs=("top1_probability", "top2_probability"),
    formula="p_(2) / p_(1)",
)
add(
    "dispersion",
    "distribution:dispersion",
    summary="Number of tokens above a probability threshold.",
    origin="dynstat",
    reference=f"{V20}: above a 1 % threshold is published, counting tokens (not mass) is a reading",
    options={"threshold": Option(0.01, QUANTILE, "strictly above this probability")},
    long_name="number of tokens above the probability threshold",
    units="token",
    valid_min=0.0,
    inputs=("logits",),
    formula="#{i : p_i > 0.01}",
)
add(
    "effective_vocabulary",
    "distribution:effective_vocabulary",
    summary="Exponential of the entropy.",
    origin="dynstat",
    reference=f"Hill 1973, Ecology 54 (order 1); vocabulary control after the {REPLY}",
    long_name="effective vocabulary size exp(H)",
    units="token",
    valid_min=1.0,
    inputs=("entropy",),
    formula="exp(H)",
)
add(
    "normalised_entropy",
    "vocabulary:normalised_entropy",
    summary="Entropy over its maximum.",
    origin="dynstat",
    reference=f"vocabulary control after the {REPLY}",
    long_name="entropy over ln V",
    valid_min=0.0,
    valid_max=1.0,
    inputs=("entropy",),
    formula="H / ln V",
)
add(
    "synchronisation",
    "distribution:synchronisation",
    summary="Agreement of a layer with the next one.",
    origin="dynstat",
    reference="Lin 1991, IEEE Trans. Inf. Theory 37; inter-layer synchronisation is named in a "
    "forum note of 2026, its formula is not published",
    options={
        "kind": Option("jsd", ("jsd", "top_k", "rbo", "cosine")),
        "k": Option(10, POSITIVE_INT, "depth of top_k and rbo"),
    },
    long_name="synchronisation of a layer's distribution with the next layer's",
    valid_min=0.0,
    valid_max=1.0,
    inputs=("logits", "next_logits"),
    undefined=("last_layer",),
    formula="1 - JSD(p^l, p^{l+1}) / ln 2",
)

# a layer against the last one, and against the token that follows
add(
    "kl_to_final",
    "against:kl_to_final",
    summary="Divergence of a layer from the last layer, expected by the layer.",
    origin="dynstat",
    reference="Kullback & Leibler 1951, Ann. Math. Stat. 22; named with its direction, since both are in use",
    long_name="Kullback-Leibler divergence KL(layer || last layer)",
    units="nat",
    valid_min=0.0,
    inputs=("logits", "final_logits"),
    formula="sum_i p_i^l ln(p_i^l / p_i^L), 0 at the last layer",
)
add(
    "kl_from_final",
    "against:kl_from_final",
    summary="Divergence of the last layer from a layer, expected by the last layer.",
    origin="dynstat",
    reference="Kullback & Leibler 1951, Ann. Math. Stat. 22; the direction of Belrose et al. 2023, "
    "arXiv:2303.08112",
    long_name="Kullback-Leibler divergence KL(last layer || layer)",
    units="nat",
    valid_min=0.0,
    inputs=("logits", "final_logits"),
    formula="sum_i p_i^L ln(p_i^L / p_i^l), 0 at the last layer",
)
add(
    "next_token_rank",
    "against:next_token_rank",
    summary="Rank of the token that follows in the text.",
    origin="dynstat",
    reference="elementary; read through the lens as in nostalgebraist 2020, interpreting GPT: the logit lens",
    long_name="rank of the token that follows, 1 for the most probable",
    valid_min=1.0,
    inputs=("logits", "next_token"),
    undefined=("last_token",),
    formula="1 + #{i : z_i > z_next}",
)
add(
    "next_token_log_probability",
    "against:next_token_log_probability",
    summary="Log-probability of the token that follows in the text.",
    origin="dynstat",
    reference="elementary; minus the cross-entropy of the lens, as in Belrose et al. 2023, arXiv:2303.08112",
    long_name="log-probability of the token that follows",
    units="nat",
    valid_max=0.0,
    inputs=("logits", "next_token"),
    undefined=("last_token",),
    formula="ln p_next",
)

# operators
add(
    "kappa_G",
    "operator:kappa_G",
    summary="Concentration pole of the operator.",
    origin="dynstat",
    reference=f"{V20} describes a concentration pole; its formula is not published",
    options={
        "kind": Option(
            "one_minus_normalised_entropy", ("one_minus_normalised_entropy", "top_k", "sum_squares")
        )
    },
    long_name="concentration pole kappa_G",
    valid_min=0.0,
    valid_max=1.0,
    inputs=("entropy",),
    formula="1 - H / ln V",
)
add(
    "kappa_D",
    "operator:kappa_D",
    summary="Competition pole of the operator.",
    origin="dynstat",
    reference=f"{V20} describes a competition pole; its formula is not published",
    options={"kind": Option("ratio", ("ratio", "damped", "margin"))},
    long_name="competition pole kappa_D",
    valid_min=0.0,
    valid_max=1.0,
    inputs=("top1_probability", "top2_probability"),
    formula="p_(2) / p_(1)",
)
add(
    "kappa_sync",
    "operator:kappa_sync",
    summary="Synchronisation of a token, mean over layers.",
    origin="dynstat",
    reference=f"{V20} names kappa_sync; its formula is not published",
    long_name="inter-layer synchronisation kappa_sync",
    valid_min=0.0,
    valid_max=1.0,
    level="token",
    inputs=("synchronisation",),
    undefined=("missing_input",),
    formula="mean over layers of 1 - JSD(p^l, p^{l+1}) / ln 2",
)
add(
    "gd_ratio",
    "operator:gd_ratio",
    summary="Mean concentration over mean competition.",
    origin="published",
    reference=f"{V20}: GD_ratio = mean G / mean D; G and D themselves are dynstat's",
    options={
        **{k: v for k, v in SELECTION.items() if k != "layer"},
        "layer": Option("all", Accepts(layer_or_all, "all", *LAYER.allowed or ()), "layers averaged over"),
        "G": Option(
            "one_minus_normalised_entropy",
            ("one_minus_normalised_entropy", "top_k", "sum_squares"),
            "reading of kappa_G",
        ),
        "D": Option("ratio", ("ratio", "damped", "margin"), "reading of kappa_D"),
        "aggregate": Option(
            "ratio",
            ("ratio", "log", "mean_of_logs"),
            "mean G / mean D, its logarithm, or the mean of ln(G / D)",
        ),
    },
    long_name="GD ratio",
    level="run",
    inputs=("kappa_G", "kappa_D"),
    undefined=("missing_input",),
    formula="mean(kappa_G) / mean(kappa_D)",
)
