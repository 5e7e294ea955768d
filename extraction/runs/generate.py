"""Write continuations: prompts read once for all samples, one draw a token that depends on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dynstat.errors import DynstatError

from ..models.loading import Loaded
from ..panels.panel import Sample
from .cache import advance, caching, expand, takes
from .interventions import Changes, intervening


def draws(model: str, prompt: str, sample: Sample, n: int) -> np.ndarray:
    """Return the uniform numbers that decide one run.

    They are a function of model, prompt, seed and temperature alone: neither the batch nor the order of
    work changes a run, a shorter budget gives the same run cut shorter, and runs of different cells are
    independent, as the models of the analysis assume.

    Parameters
    ----------
    model, prompt : str
        Identifiers.
    sample : Sample
        Its seed and temperature are used.
    n : int
        Number of tokens.

    Returns
    -------
    ndarray of float64 in [0, 1), shape (n,)
    """
    cell = "\x1f".join(["dynstat draws 1", model, prompt, str(sample.seed), f"{sample.temperature:.17g}"])
    key = int.from_bytes(hashlib.sha256(cell.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key)).random(n)


def generate(
    model: Loaded,
    prompts: Sequence[str],
    ids: Tensor,
    samples: Sequence[Sample],
    steps: int,
    *,
    suppress_end: bool = False,
    stop: bool = False,
    nonfinite: str = "error",
    changes: Changes | None = None,
) -> Tensor:
    """Let a model continue prompts of equal length.

    Parameters
    ----------
    model : Loaded
        The model.
    prompts : sequence of str
        Identifiers of the prompts.
    ids : Tensor of int64, shape (prompt, token)
        Start token and prompt, on the device of the model.
    samples : sequence of Sample
        Ways of writing; temperature 0 takes the most probable token.
    steps : int
        Tokens to write.
    suppress_end : bool, optional
        Never write end of text.
    stop : bool, optional
        Write no further once every run has ended its text; what a run has written until then stays the same.
    nonfinite : {"error", "flag"}, optional
        "flag" leaves out logits that are not finite.
    changes : Changes, optional
        What is done to the states meanwhile.

    Returns
    -------
    Tensor of int64, shape (prompt, sample, token + steps)
        With `stop` at most so many tokens, and one step at least.

    Raises
    ------
    DynstatError
        X206 where logits are not finite.

    Notes
    -----
    Inverse of the cumulative distribution: the first token whose cumulated float64 probability exceeds
    the draw, in the order of ids.
    """
    way, n = caching(model), len(samples)
    rows = ids.repeat_interleave(n, 0)
    uniform = np.stack([draws(model.id, p, s, steps) for p in prompts for s in samples])
    temperature = torch.tensor(
        [[s.temperature] for _ in prompts for s in samples], dtype=torch.float64, device=ids.device
    )
    greedy = temperature[:, 0] == 0
    valid = torch.tensor(model.encoder.valid, device=ids.device)
    end = model.encoder.end_of_text
    ended = torch.zeros(len(rows), dtype=torch.bool, device=ids.device)
    shared = way.generation == "shared" and not (changes and changes.disturbs_prompt)
    last = {"logits_to_keep": 1} if takes(model.lm, "logits_to_keep") else {}
    out, cache, now = [rows], None, ids if shared else rows
    with torch.inference_mode(), intervening(model, changes) as place:
        for step in range(steps):
            if way.generation == "uncached":
                reply = model.lm(input_ids=torch.cat(out, 1), use_cache=False, **last)
            else:
                reply, cache = advance(model.lm, now, way.name, cache, **last)
                place.start = ids.shape[1] + step
            logits = reply.logits[:, -1, valid].double()
            if len(logits) < len(rows):
                logits, cache = logits.repeat_interleave(n, 0), expand(cache, len(ids), n)
            _make_finite(logits, nonfinite, model, prompts, samples, rows.shape[1] + step - 1)
            if suppress_end and end >= 0:
                logits[:, valid == end] = -torch.inf
            place_of = logits.argmax(-1)
            if not bool(greedy.all()):
                p = torch.softmax(logits / torch.where(greedy[:, None], 1.0, temperature), -1).cumsum(-1)
                u = torch.from_numpy(uniform[:, step, None].copy()).to(ids.device) * p[:, -1:]
                drawn = torch.searchsorted(p, u, right=True)[:, 0].clamp_(max=len(valid) - 1)
                place_of = torch.where(greedy, place_of, drawn)
            now = valid[place_of][:, None]
            out.append(now)
            ended |= now[:, 0] == end
            if stop and bool(ended.all()):
                break
    return torch.cat(out, 1).reshape(len(prompts), n, -1)


def _make_finite(
    logits: Tensor, nonfinite: str, model: Loaded, prompts: Sequence[str], samples: Sequence[Sample], at: int
) -> None:
    """Refuse logits that are not finite, or leave them out, in place."""
    finite = torch.isfinite(logits)
    if finite.all():
        return
    if nonfinite == "error":
        prompt, sample = divmod(int((~finite.all(-1)).nonzero()[0]), len(samples))
        raise DynstatError(
            "X206",
            f"model {model.id!r} computed logits that are not finite",
            where=f"prompt {prompts[prompt]!r}, sample {samples[sample].id!r}, token {at}",
            expected="finite logits",
            mend="`nonfinite: flag` stores and flags such points",
        )
    logits[~finite] = -torch.inf
    logits[~finite.any(-1)] = 0.0
