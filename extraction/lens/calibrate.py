"""One temperature a model: the mean entropy of its own distributions on a text, brought to a wanted value.

Logits are made anew, block by block, for every temperature that is tried, so that no more than one block of
tokens times the vocabulary is ever held. Run ``python -m dynstat.extraction.lens.calibrate PANEL`` to see the
entropies of a panel's models, and their mean, which is a common entropy that asks for the least change.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dynstat import data_path
from dynstat.errors import DynstatError
from dynstat.files import read_text

from ..models.capture import states
from ..models.loading import Loaded
from ..panels.access import check_running_text
from ..panels.panel import Panel, load_panel

#: The text that comes with dynstat.
TEXT = "texts/held_out.txt"
#: Tokens of a window, start token included; less where a model reads less.
WINDOW = 128
#: The mean entropy is met within this, in nat.
TOLERANCE = 1e-6
# The root itself is found closer; what is given is rounded, so that it does not hang on how sums round.
_ROOT = 1e-9
_DIGITS = 8
# Beyond these temperatures float64 holds no more of the logits' differences.
_COLDEST, _HOTTEST = math.log(1e-6), math.log(1e6)
_MOST_PASSES = 80
_BLOCK_BYTES = 16 << 20
_LEAST_ROWS = 32  # fewer make a matmul slow


@dataclass(frozen=True)
class Final:
    """The last states of a model on a text, at the tokens that count.

    Attributes
    ----------
    model : Loaded
        The model.
    states : Tensor, shape (token, width)
        Before the final norm; first and special tokens left out.
    """

    model: Loaded
    states: Tensor

    def logits(self) -> Iterator[Tensor]:
        """Yield the logits of valid tokens in float64, block by block, shape (token, vocabulary)."""
        valid = torch.tensor(self.model.encoder.valid, device=self.states.device)
        step = max(_LEAST_ROWS, _BLOCK_BYTES // (8 * len(valid)))
        for start in range(0, len(self.states), step):
            with torch.inference_mode():
                # A batch of one sequence, the shape that a model gives to its own head.
                logits = self.model.readout(self.states[None, start : start + step])[0]
            yield logits.index_select(-1, valid).double()

    def entropy(self, temperature: float = 1.0) -> tuple[float, float]:
        """Return the mean entropy at a temperature, and its derivative by the log of the temperature.

        Parameters
        ----------
        temperature : float, optional
            T of softmax(logits / T).

        Returns
        -------
        entropy, slope : float
            In nat; dH / d ln T = Var(logits) / T² under the distribution, never negative.
        """
        entropy = slope = 0.0
        for logits in self.logits():
            scaled = logits.sub_(logits.amax(-1, keepdim=True)).div_(temperature)
            p = scaled.exp()
            total = p.sum(-1, keepdim=True)
            p.div_(total)
            mean = (p * scaled).sum(-1, keepdim=True)
            entropy += float((total.log() - mean).sum())
            slope += float(scaled.sub_(mean).square_().mul_(p).sum())
        return entropy / len(self.states), slope / len(self.states)


def windows(model: Loaded, text: str, where: str = "text") -> Tensor:
    """Cut a text into windows as a model reads them.

    Parameters
    ----------
    model : Loaded
        Its tokenizer, start token and context are used.
    text : str
        Running text.
    where : str, optional
        Named in the error.

    Returns
    -------
    Tensor of int64, shape (window, token)
        128 tokens each, or the model's context where that is less, the start token first; a last window
        that is not full is left out.

    Raises
    ------
    DynstatError
        S404 where the text does not fill one window, or is of special tokens alone.
    """
    encoder = model.encoder
    config = model.lm.config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    room = [getattr(config, n, None) for n in names]
    window = min([WINDOW, *(n for n in room if isinstance(n, int) and n > 0)])
    # A text longer than the context is meant: it is cut below, and no warning is due.
    ids = encoder.tokenizer.encode(text, add_special_tokens=False, verbose=False)
    body = window - len(encoder.start)
    if len(ids) < body:
        raise DynstatError(
            "S404",
            "the held-out text is too short",
            where=where,
            found=f"{len(ids)} tokens of {model.id!r}",
            expected=f"at least {body}, one window",
            mend="give more text",
        )
    rows = torch.tensor(ids[: len(ids) // body * body]).reshape(-1, body)
    start = torch.tensor(encoder.start, dtype=torch.int64).expand(len(rows), -1)
    whole = torch.cat([start, rows], 1).to(model.device)
    if not bool(counted(model, whole).any()):
        raise DynstatError(
            "S404",
            "the held-out text has no token whose distribution counts",
            where=where,
            found=f"special tokens of {model.id!r} alone",
            expected="running text",
            mend="give a text of words",
        )
    return whole


def counted(model: Loaded, ids: Tensor) -> Tensor:
    """Say at which tokens of windows a distribution counts: not at first and not at special ones.

    Returns
    -------
    Tensor of bool, shape of `ids`
    """
    special = torch.tensor(sorted(model.encoder.special), dtype=ids.dtype, device=ids.device)
    keep = ~torch.isin(ids, special)
    keep[:, 0] = False
    return keep


def read_windows(model: Loaded, ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Read windows, a few at a time.

    Yields
    ------
    ids : Tensor, shape (window, token)
        Of these windows.
    states : Tensor, shape (layer, window, token, width)
        Every state, the last before the final norm.
    """
    width = model.lm.config.get_text_config().hidden_size
    step = max(1, (64 << 20) // (4 * (len(model.blocks) + 1) * ids.shape[1] * width))
    for part in ids.split(step):
        yield part, states(model.body, model.blocks, part)


def final_states(model: Loaded, text: str, where: str = "text") -> Final:
    """Read a text and keep the last states.

    Parameters
    ----------
    model : Loaded
        The model.
    text : str
        Running text.
    where : str, optional
        Named in the error.

    Returns
    -------
    Final

    Raises
    ------
    DynstatError
        S404 where the text does not fill one window, or is of special tokens alone.
    """
    kept = [read[-1][counted(model, ids)] for ids, read in read_windows(model, windows(model, text, where))]
    return Final(model, torch.cat(kept))


def matched_temperature(final: Final, entropy: float, where: str = "") -> float:
    """Find the temperature at which the mean entropy of a model on a text is the wanted one.

    The mean entropy rises strictly with T, from 0 to ln V; the root of H(T) = `entropy` is sought by Newton's
    steps in ln T, each kept within the bracket that the steps before it have left (bisection where it would
    leave it).

    Parameters
    ----------
    final : Final
        The model's states on the text.
    entropy : float
        In nat, above 0 and below ln V.
    where : str, optional
        Named in the error.

    Returns
    -------
    float
        T > 0 in eight digits, at which the mean entropy is within 1e-6 nat of the wanted one.

    Raises
    ------
    DynstatError
        X224 where no temperature gives that entropy.
    """
    vocabulary = len(final.model.encoder.valid)
    if not 0.0 < entropy < math.log(vocabulary):
        raise _not_found(
            final, entropy, f"above 0 and below ln {vocabulary} = {math.log(vocabulary):.4g}", where
        )
    low, high, at = _COLDEST, _HOTTEST, 0.0
    for _ in range(_MOST_PASSES):
        found, slope = final.entropy(math.exp(at))
        if abs(found - entropy) <= _ROOT:
            return float(f"{math.exp(at):.{_DIGITS}g}")
        if not math.isfinite(found):  # neither are the logits
            break
        low, high = (at, high) if found < entropy else (low, at)
        # Where the curve is flat Newton's step would leave the range; a factor of e² is enough at once.
        step = (entropy - found) / slope if slope > 0 else math.copysign(math.inf, entropy - found)
        aim = at + min(max(step, -2.0), 2.0)
        at = aim if low < aim < high else (low + high) / 2
        if high - low < 1e-14:
            break
    raise _not_found(
        final, entropy, f"an entropy that a temperature gives; {found:.6g} was the nearest", where
    )


def _not_found(final: Final, entropy: float, expected: str, where: str) -> DynstatError:
    return DynstatError(
        "X224",
        f"no temperature gives model {final.model.id!r} the wanted entropy",
        where=where,
        found=f"{entropy:g} nat",
        expected=expected,
        mend="python -m dynstat.extraction.lens.calibrate PANEL names the entropies of the panel's models",
    )


def own_entropies(panel: Panel, text: Path | None = None) -> dict[str, float]:
    """Measure the mean entropy of every model of a panel on a text, at temperature 1.

    Parameters
    ----------
    panel : Panel
        Its models, start token, device and threads are used.
    text : Path, optional
        UTF-8 text; the one that comes with dynstat if not given.

    Returns
    -------
    dict of str to float
        Nat, by model. Their mean is a common entropy to ask of ``t_matched``.

    Raises
    ------
    DynstatError
        F001 (no text), Y003 (a table of prompts), S404 (too short), and those of finding and loading a model.
    """
    from ..models.device import arithmetic
    from ..models.encoding import encoder
    from ..models.loading import load
    from ..models.sources import locate

    file = check_running_text(text or data_path(TEXT))
    words = read_text(file)
    out = {}
    for spec in panel.models:
        source = locate(spec, panel.dtype)
        with arithmetic(panel):
            model = load(source, encoder(source, panel), panel.device)
            out[spec.id] = final_states(model, words, str(file)).entropy()[0]
    return out


def main(arguments: list[str] | None = None) -> int:
    """Print the entropy of every model of a panel and their mean; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dynstat.extraction.lens.calibrate", description=__doc__)
    parser.add_argument("panel", help="panel file")
    parser.add_argument(
        "--text", type=Path, help="held-out text; the one that comes with dynstat if not given"
    )
    options = parser.parse_args(arguments)
    try:
        found = own_entropies(load_panel(options.panel), options.text)
    except DynstatError as error:
        print(error, file=sys.stderr)
        return int(error.exit)
    for name, value in found.items():
        print(f"{name:<32} {value:.4f} nat")
    print(f"{'entropy: (the mean)':<32} {sum(found.values()) / len(found):.4f} nat")
    return 0


if __name__ == "__main__":
    sys.exit(main())
