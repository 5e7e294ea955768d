"""One block of points through all layers: statistics of each, by pieces that stay in the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .definitions import from_logits
from .distributions import Buffers, Followed, Reading
from .requests import Request
from .truncated import TopReading
from .variants import Variant

# Bytes of one buffer of a piece: it and what is made of it should lie in the cache.
PIECE_BYTES = 3 << 20


@dataclass
class Plain:
    """What is read of every point whatever is asked for.

    Attributes
    ----------
    finite : Tensor of bool, shape (layer, point)
        Whether all logits are finite.
    top1 : Tensor of int64, shape (layer, point)
        Column of the largest logit.
    spoken : Tensor of float32, shape (point,)
        Log-probability of the token that follows, by the last layer.
    """

    finite: Tensor
    top1: Tensor
    spoken: Tensor


class Sweep:
    """Statistics of a block of points, from the last layer down, of variants with the same logits.

    Parameters
    ----------
    asked : sequence of (Variant, sequence of Request)
        The variants, and what is asked of each.
    target, followed : Tensor, shape (point,)
        The column of the token after each point, and whether there is one.
    layers : int
        Number of layers.
    buffers : Buffers
        Memory, which blocks may share one after the other.
    """

    def __init__(
        self,
        asked: Sequence[tuple[Variant, Sequence[Request]]],
        target: Tensor,
        followed: Tensor,
        layers: int,
        buffers: Buffers,
    ) -> None:
        n, device = len(target), target.device
        self._asked, self._target, self._followed = asked, target, followed
        self._last, self._buffers = layers - 1, buffers
        self._values: dict[str, Tensor] = {
            r.name: torch.full((1 if r.of_token else layers, n), torch.nan, device=device)
            for _, part in asked
            for r in part
        }
        self.plain = Plain(
            torch.zeros((layers, n), dtype=torch.bool, device=device),
            torch.zeros((layers, n), dtype=torch.int64, device=device),
            torch.full((n,), torch.nan, device=device),
        )
        self._inputs = [{i for r in part if r.kernel for i in r.metric.inputs} for _, part in asked]
        # A divergence from the last layer takes its probabilities, one to it only its logits.
        self._names = [{r.metric.name for r in part} for _, part in asked]
        defined = [(v, r) for v, part in asked for r in part if r.kernel is None]
        self._defined = [(v, r) for v, r in defined if not r.of_token]
        self._once = [(v, r) for v, r in defined if r.of_token]
        self._held = {i for _, r in self._defined for i in r.metric.inputs}
        self._listed = max([2, *(_listed(v, r) for v, part in asked for r in part)])
        self._final: dict[tuple[int, int], Reading] = {}
        self._next: dict[tuple[int, int], Followed | TopReading] = {}
        self._whole: dict[str, Tensor] = {}

    def read(self, layer: int, logits: Tensor, finish: Callable[[Tensor], Tensor]) -> None:
        """Compute what is asked of one layer; layers come from the last to the first.

        Parameters
        ----------
        layer : int
            Index of the layer.
        logits : Tensor of float32, shape (point, valid token)
            Overwritten; those of the last layer are held where others are compared with them.
        finish : callable
            What is still to be done to the logits, in place.
        """
        whole = self._defined or (self._once and layer == self._last)
        if whole:
            logits = finish(logits)
            self._definitions(layer, logits)
        rows = len(logits)
        if logits.device.type == "cpu":
            rows = max(1, PIECE_BYTES // (4 * logits.shape[-1]))
        for start in range(0, len(logits), rows):
            piece = slice(start, min(start + rows, len(logits)))
            self._piece(layer, piece, logits[piece] if whole else finish(logits[piece]))

    def _piece(self, layer: int, piece: slice, logits: Tensor) -> None:
        whole, last = Reading(logits, self._buffers, self._listed), layer == self._last
        self.plain.finite[layer, piece] = whole.finite
        for i, (variant, part) in enumerate(self._asked):
            scaled = whole if variant.temperature == 1.0 else whole.at(variant.temperature)
            if not variant.name:
                self._plainly(scaled, layer, piece)
            reading = TopReading(scaled, variant.top_k) if variant.top_k else scaled
            key = (i, piece.start)
            for r in part:
                if r.kernel is not None:
                    value = self._apply(r, reading, key, last, piece)
                    if value is not None:
                        self._values[r.name][layer, piece] = value.float()
            if "next_logits" in self._inputs[i]:
                self._next[key] = (
                    reading.followed(self._memory(f"next {i}", piece, logits))
                    if isinstance(reading, Reading)
                    else reading
                )
            if last and "final_logits" in self._inputs[i]:
                out = self._memory(f"final {i}", piece, logits) if "kl_from_final" in self._names[i] else None
                scaled.keep(out)
                self._final[key] = scaled

    def _plainly(self, reading: Reading, layer: int, piece: slice) -> None:
        self.plain.top1[layer, piece] = reading.top1_id
        if layer == self._last:
            spoken = reading.log_probability(self._target[piece]).clamp_(max=0.0)
            told = reading.finite & self._followed[piece]
            self.plain.spoken[piece] = torch.where(told, spoken, torch.nan).float()

    def _apply(
        self, r: Request, reading: Reading | TopReading, key: tuple[int, int], last: bool, piece: slice
    ) -> Tensor | None:
        """Return a metric of a piece, NaN where something it takes is not there; None for a whole layer."""
        assert r.kernel is not None
        good = reading.finite
        arguments: list[object] = []
        for name in r.metric.inputs:
            if name == "next_logits":
                if last:
                    return None
                arguments.append(self._next[key])
                good = good & self._next[key].finite
            elif name == "final_logits":
                if last:  # by definition; two roundings of one distribution would give nearly that
                    return torch.where(good, 0.0, torch.nan)
                arguments.append(self._final[key])
                good = good & self._final[key].finite
            elif name == "next_token":
                arguments.append(self._target[piece])
                good = good & self._followed[piece]
            else:
                arguments.append(reading)
        return torch.where(good, r.kernel(*arguments, **r.options), torch.nan)

    def _memory(self, name: str, piece: slice, logits: Tensor) -> Tensor:
        """Return where probabilities of a piece outlive it."""
        return self._buffers.take(name, len(self._target), logits)[piece]

    def _definitions(self, layer: int, logits: Tensor) -> None:
        """Call the definitions that have no kernel; they take logits as they are."""
        self.plain.finite[layer] = logits.isfinite().all(-1)
        last = layer == self._last
        arrays = {"logits": logits, "next_token": self._target}
        good = {"logits": self.plain.finite[layer], "next_token": self._followed}
        if last:
            of_last = {"final_logits": logits, "next_token": self._target}
            there = {"final_logits": self.plain.finite[layer], "next_token": self._followed}
            for variant, r in self._once:
                self._values[r.name][0] = from_logits(r, None, of_last, there, variant.temperature)
            # What is held is copied, since readings work in place.
            if "final_logits" in self._held:
                self._whole["final_logits"] = logits.clone()
        elif "next_logits" in self._whole:
            arrays["next_logits"] = self._whole["next_logits"]
            good["next_logits"] = self.plain.finite[layer + 1]
        if "final_logits" in self._whole:
            arrays["final_logits"] = self._whole["final_logits"]
            good["final_logits"] = self.plain.finite[-1]
        for variant, r in self._defined:
            if set(r.metric.inputs) <= set(arrays):
                self._values[r.name][layer] = from_logits(r, layer, arrays, good, variant.temperature)
        if "next_logits" in self._held:
            self._whole["next_logits"] = logits.clone()

    def write(self, values: Mapping[str, Tensor], start: int, stop: int) -> None:
        """Copy what was found into the results of all points, of shape (layer, point) or (1, point)."""
        for name, found in self._values.items():
            values[name][:, start:stop] = found


def _listed(variant: Variant, r: Request) -> int:
    """Return how many of the most probable tokens a kernel takes; of a definition `k` may mean anything."""
    return max(variant.top_k, int(r.options.get("k", 2)) if r.kernel else 2)
