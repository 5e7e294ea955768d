"""Write continuations: groups of equal prompt length, one draw a token that depends on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dynstat.errors import DynstatError

from .models import Loaded
from .panel import Sample


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
    nonfinite: str = "error",
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
    nonfinite : {"error", "flag"}, optional
        "flag" leaves out logits that are not finite.

    Returns
    -------
    Tensor of int64, shape (prompt, sample, token + steps)

    Raises
    ------
    DynstatError
        X206 where logits are not finite.

    Notes
    -----
    Inverse of the cumulative distribution: the first token whose cumulated float64 probability exceeds
    the draw, in the order of ids.
    """
    rows = ids.repeat_interleave(len(samples), 0)
    uniform = np.stack([draws(model.id, p, s, steps) for p in prompts for s in samples])
    temperature = torch.tensor(
        [[s.temperature] for _ in prompts for s in samples], dtype=torch.float64, device=ids.device
    )
    greedy = temperature[:, 0] == 0
    valid = torch.tensor(model.encoder.valid, device=ids.device)
    out = [rows]
    past, now = None, rows
    with torch.inference_mode():
        for step in range(steps):
            reply = model.lm(input_ids=now, past_key_values=past, use_cache=True, logits_to_keep=1)
            past = reply.past_key_values
            logits = reply.logits[:, -1, valid].double()
            if not torch.isfinite(logits).all():
                if nonfinite == "error":
                    prompt, sample = divmod(int((~torch.isfinite(logits).all(-1)).nonzero()[0]), len(samples))
                    raise DynstatError(
                        "X206",
                        f"model {model.id!r} computed logits that are not finite",
                        where=f"prompt {prompts[prompt]!r}, sample {samples[sample].id!r}, "
                        f"token {rows.shape[1] + step - 1}",
                        expected="finite logits",
                        mend="`nonfinite: flag` stores and flags such points",
                    )
                logits = torch.where(torch.isfinite(logits), logits, -torch.inf)
                logits[~torch.isfinite(logits).any(-1)] = 0.0
            if suppress_end and model.encoder.end_of_text >= 0:
                logits[:, valid == model.encoder.end_of_text] = -torch.inf
            place = logits.argmax(-1)
            if not bool(greedy.all()):
                p = torch.softmax(logits / torch.where(greedy[:, None], 1.0, temperature), -1).cumsum(-1)
                u = torch.from_numpy(uniform[:, step, None].copy()).to(ids.device) * p[:, -1:]
                drawn = torch.searchsorted(p, u, right=True)[:, 0].clamp_(max=len(valid) - 1)
                place = torch.where(greedy, place, drawn)
            now = valid[place][:, None]
            out.append(now)
    return torch.cat(out, 1).reshape(len(prompts), len(samples), -1)
