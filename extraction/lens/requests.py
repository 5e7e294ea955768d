"""What a panel asks of the engine: metric, options, and the name of the variable, a read-out at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynstat.registry import METRICS, Metric, parse_measured, variable_name

from . import kernels  # noqa: F401  (attaches the kernels)
from .variants import Variant

# A distribution cut to its most probable tokens gives other tokens no probability to be compared with.
_WHOLE_ONLY = ("final_logits", "next_token")


@dataclass(frozen=True)
class Request:
    """One metric to be measured.

    Attributes
    ----------
    name : str
        Name of the variable, with the suffix of the variant.
    metric : Metric
        Its definition.
    options : mapping
        All of them.
    kernel : callable or None
        Its torch kernel; without it the definition is called with NumPy arrays.
    """

    name: str
    metric: Metric
    options: Mapping[str, Any]
    kernel: Callable[..., Any] | None

    @property
    def of_states(self) -> bool:
        """Whether it is made of states and not of distributions."""
        return bool({"states", "steps"} & set(self.metric.inputs))

    @property
    def of_token(self) -> bool:
        """Whether it is one value a token, made of all layers or of the last, and not one a layer."""
        return self.metric.level == "token"


def requests(metrics: Sequence[Mapping[str, Any]], variant: Variant) -> list[Request]:
    """Return what is asked of a variant; of others than the plain one only what a read-out changes.

    Parameters
    ----------
    metrics : sequence of mapping
        As in :class:`Panel`.
    variant : Variant
        The way of reading.
    """
    found = []
    for spec in metrics:
        metric, options = parse_measured(spec)
        kernel = METRICS.kernel(metric.id)
        if options.get("kind", "jsd") != "jsd":
            kernel = None
        name = variable_name(spec)
        request = Request(f"{name}__{variant.name}" if variant.name else name, metric, options, kernel)
        if not variant.name or (not request.of_states and offered(request, variant)):
            found.append(request)
    return found


def offered(request: Request, variant: Variant) -> bool:
    """Say whether a metric has a meaning for a variant.

    A distribution that is renormalised on its k most probable tokens has no divergence to the last layer's,
    which may keep others, and no rank or probability of a token that is not among them. Definitions without
    a kernel take whole distributions.
    """
    if not variant.top_k:
        return True
    return request.kernel is not None and not set(_WHOLE_ONLY) & set(request.metric.inputs)
