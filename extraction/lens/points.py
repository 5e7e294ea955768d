"""Flatten the runs of a batch into points, each read once, and spread what was found over the runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..runs.reading import Runs


class Points:
    """The tokens of a batch whose states differ: those that samples share come once, padding not at all.

    Points stand in the order of prompts and tokens for the shared part, then of rows and tokens.

    Parameters
    ----------
    runs : Runs
        The states.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        rows, length = runs.ids.shape
        device = runs.ids.device
        common, prompts = runs.common, runs.shared.shape[1]
        token = torch.arange(length, device=device)
        inside = token < runs.lengths[:, None]
        # A shared token belongs to every row of its prompt, and is read where one of them holds it.
        of_prompt = inside[:, :common].reshape(prompts, rows // max(prompts, 1), common).any(1)
        self._shared_at = _selected(of_prompt)
        self._own_at = _selected(inside[:, common:])
        self.n_shared = int(of_prompt.sum())
        self.n = self.n_shared + int(inside[:, common:].sum())
        shared_row, shared_token = of_prompt.nonzero().unbind(-1)
        own_row, own_token = inside[:, common:].nonzero().unbind(-1)
        self._row = torch.cat([shared_row * (rows // max(prompts, 1)), own_row])
        self._token = torch.cat([shared_token, own_token + common])
        #: Where a point lies in a run; -1 is padding; shape (row, token).
        place = torch.full((rows, length), -1, dtype=torch.int64, device=device)
        place[own_row, own_token + common] = torch.arange(self.n_shared, self.n, device=device)
        if common:
            of_shared = torch.full((prompts, common), -1, dtype=torch.int64, device=device)
            of_shared[shared_row, shared_token] = torch.arange(self.n_shared, device=device)
            part = of_shared.repeat_interleave(rows // prompts, 0)
            place[:, :common] = torch.where(inside[:, :common], part, -1)
        self._place = place.cpu().numpy()

    def states(self, layer: int, start: int, stop: int) -> Tensor:
        """Return the states of some points at a layer, shape (stop - start, width)."""
        parts = []
        if start < self.n_shared:
            parts.append(_rows(self._runs.shared[layer], self._shared_at, start, min(stop, self.n_shared)))
        if stop > self.n_shared:
            begin = max(start, self.n_shared) - self.n_shared
            parts.append(_rows(self._runs.own[layer], self._own_at, begin, stop - self.n_shared))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def following(self) -> tuple[Tensor, Tensor]:
        """Return the token after each point, 0 where none follows, and whether one does; shape (n,)."""
        ids, lengths = self._runs.ids, self._runs.lengths
        there = self._token + 1 < lengths[self._row]
        after = ids[self._row, (self._token + 1).clamp(max=ids.shape[1] - 1)]
        return torch.where(there, after, 0), there

    def spread(self, values: np.ndarray, fill: float) -> np.ndarray:
        """Return values of points over the runs.

        Parameters
        ----------
        values : ndarray, shape (n, ...)
            By point.
        fill : number
            What padding gets.

        Returns
        -------
        ndarray, shape (row, token, ...)
        """
        if not self.n:
            return np.full((*self._place.shape, *values.shape[1:]), fill, values.dtype)
        out = values[self._place]
        if (padding := self._place < 0).any():
            out[padding] = fill
        return out

    def blocks(self, step: int) -> Iterator[tuple[int, int]]:
        """Yield first point and end of blocks of at most `step` points, as equal in size as they can be."""
        count = -(-self.n // step)
        for i in range(count):
            yield i * self.n // count, (i + 1) * self.n // count


def _selected(mask: Tensor) -> Tensor | None:
    """Return the flat indices where a mask holds, None where it holds everywhere."""
    return None if bool(mask.all()) else mask.flatten().nonzero()[:, 0]


def _rows(states: Tensor, at: Tensor | None, start: int, stop: int) -> Tensor:
    flat = states.reshape(-1, states.shape[-1])
    return flat[start:stop] if at is None else flat[at[start:stop]]
