"""Train the translators of the tuned lens on held-out text.

Run ``python -m dynstat.extraction.training.tuned --model PATH --text FILE --out FILE``. Each layer's map is
trained to bring the lens of that layer near to the model's own distribution at the end: the mean over tokens
of KL(final || lens of the translated state) is made small, layer by layer, with one thread and one seed.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from dynstat import __version__, data_path
from dynstat.errors import DynstatError
from dynstat.files import read_text, sha256_file

from ..lens.calibrate import TEXT, counted, read_windows, windows
from ..lens.translators import Translators, fingerprint, save_translators, state_width
from ..models.encoding import encoder_of, load_tokenizer
from ..models.loading import Loaded, load
from ..models.memory import evaluation
from ..models.readout import ReadOut
from ..models.sources import locate
from ..panels.access import check_running_text
from ..panels.panel import ModelSpec
from .train import one_deterministic_thread

_BLOCK_BYTES = 16 << 20
_LEAST_ROWS = 32


@dataclass(frozen=True)
class Settings:
    """Fix everything that determines the translators apart from model and text.

    Attributes
    ----------
    epochs : int
        Passes over the training windows, at most.
    windows : int
        Windows of an update.
    rate : float
        Highest learning rate of Adam, divided by the width of the state for A (a row of which adds up
        so many terms); a half cosine brings it to 0.
    patience : int
        Epochs without gain in any layer after which training ends.
    every : int
        Each window of this number validates and does not train.
    seed : int
        Of the order of windows.
    """

    epochs: int = 6
    windows: int = 4
    rate: float = 0.5
    patience: int = 3
    every: int = 8
    seed: int = 0


def train(
    model: Loaded,
    text: str,
    settings: Settings = Settings(),
    report: Callable[[str], None] | None = None,
) -> Translators:
    """Train the translators of a model.

    Parameters
    ----------
    model : Loaded
        Of files or of memory (``models.wrap``); it is not changed, gradients included.
    text : str
        Running text, best such as the model was not trained on.
    settings : Settings, optional
        How it is trained.
    report : callable, optional
        Called with a line of text an epoch.

    Returns
    -------
    Translators
        Of each layer the epoch that validated best, or zero where none was better than the plain lens.
        ``about["losses"]`` has KL(final || lens) in nat on the validation windows, ``before`` and ``after``.

    Raises
    ------
    DynstatError
        S404 where the text has too few windows, X207 where the read-out is not a chain of modules.
    """
    check_trainable(model)
    with evaluation(model.lm):
        return _train(model, text, settings, report)


def _train(model: Loaded, text: str, settings: Settings, report: Callable[[str], None] | None) -> Translators:
    ids = windows(model, text)
    if len(ids) < 2 * settings.every:
        raise DynstatError(
            "S404",
            "the text is too short to train translators on",
            found=f"{len(ids)} windows",
            expected=f"at least {2 * settings.every} of {ids.shape[1]} tokens",
            mend="give more text",
        )
    number = torch.arange(len(ids))
    validating, training = ids[number % settings.every == 0], ids[number % settings.every != 0]
    maps = _Maps(model, _scales(model, training[: settings.windows]))
    before = divergences(model, validating)
    best, kept, stale = before.clone(), maps.copy(), 0
    updates = math.ceil(len(training) / settings.windows) * settings.epochs
    optimiser = torch.optim.Adam(
        [
            {"params": [maps.weight], "lr": settings.rate / maps.width},
            {"params": [maps.bias], "lr": settings.rate / 10},
        ]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 * (1.0 + math.cos(math.pi * min(step / updates, 1.0)))
    )
    order = torch.Generator().manual_seed(settings.seed)
    for epoch in range(settings.epochs):
        for rows in torch.randperm(len(training), generator=order).split(settings.windows):
            optimiser.zero_grad()
            _accumulate(model, maps, training[rows])
            optimiser.step()
            schedule.step()
        now = divergences(model, validating, maps.translators())
        better = now < best
        best = torch.where(better, now, best)
        kept.take(maps, better[:-1])
        stale = 0 if bool(better.any()) else stale + 1
        if report:
            mean, plain = float(now[:-1].mean()), float(before[:-1].mean())
            report(f"epoch {epoch + 1} mean KL {mean:.4f} (plain {plain:.4f})")
        if stale == settings.patience:
            break
    losses = {"before": before.tolist(), "after": best.tolist(), "unit": "nat", "windows": len(validating)}
    about = {
        **fingerprint(model),
        "dynstat": __version__,
        "training": {
            **asdict(settings),
            "window": ids.shape[1],
            "tokens": training.numel(),
            "epochs_run": epoch + 1,
        },
        "losses": losses,
    }
    done = kept.translators()
    return Translators(done.weight, done.bias, about)


def divergences(model: Loaded, ids: Tensor, translators: Translators | None = None) -> Tensor:
    """Measure the mean KL(final || lens) of every layer.

    Parameters
    ----------
    model : Loaded
        The model.
    ids : Tensor of int64, shape (window, token)
        As :func:`windows` cuts them; first and special tokens do not count.
    translators : Translators, optional
        Applied before the read-out; none for the plain lens.

    Returns
    -------
    Tensor of float64, shape (layer,)
        Nat; 0 at the last layer.
    """
    layers = len(model.blocks) + 1
    total, n = torch.zeros(layers, dtype=torch.float64), 0
    with evaluation(model.lm), torch.no_grad():
        for states in _counted_states(model, ids):
            truth = _log_p(model, states[-1])
            n += len(truth)
            for layer in range(layers - 1):
                state = translators(layer, states[layer]) if translators else states[layer]
                total[layer] += _divergence(truth, _log_p(model, state)).double().cpu()
    return total / n


def _divergence(truth: Tensor, log_p: Tensor) -> Tensor:
    """Sum KL over tokens; bounded below so that 0 times minus infinity is 0."""
    return (truth.exp() * (truth.clamp(min=-1e30) - log_p.clamp(min=-1e30))).sum()


def _log_p(model: Loaded, states: Tensor) -> Tensor:
    readout = model.readout
    if isinstance(readout, ReadOut):
        # As the read-out itself, but never in place: gradients need what it would write over.
        logits = readout.chain[-1](readout.features(states[None]))[0].float() * readout.scale
        if readout.soft_cap is not None:
            logits = readout.soft_cap * (logits / readout.soft_cap).tanh()
    else:
        logits = readout(states[None])[0]
    valid = model.encoder.valid
    if len(valid) < logits.shape[-1]:
        logits = logits[:, torch.tensor(valid, device=logits.device)]
    return logits.log_softmax(-1)


def _counted_states(model: Loaded, ids: Tensor) -> Iterator[Tensor]:
    """Yield states of the tokens that count, in blocks whose logits fit, shape (layer, token, width)."""
    step = max(_LEAST_ROWS, _BLOCK_BYTES // (4 * len(model.encoder.valid)))
    for part, read in read_windows(model, ids):
        # Out of inference mode, so that gradients may pass.
        yield from read[:, counted(model, part)].float().split(step, 1)


def _accumulate(model: Loaded, maps: _Maps, ids: Tensor) -> None:
    """Add up the gradients of a batch of windows: of one layer's map at a time, and of nothing else.

    Parameters of a model in memory may ask for gradients and get none here.
    """
    n = int(counted(model, ids).sum())
    for parameter in maps.both:
        parameter.grad = torch.zeros_like(parameter)
    for states in _counted_states(model, ids):
        with torch.no_grad():
            truth = _log_p(model, states[-1])
        for layer in range(len(states) - 1):
            # A gradient of all maps would be mostly zeros, and as large as all of them.
            weight, bias = (p.detach()[layer : layer + 1].requires_grad_() for p in maps.both)
            translated = Translators(weight, bias * maps.scales[layer])(0, states[layer])
            loss = _divergence(truth, _log_p(model, translated)) / n
            for parameter, slope in zip(maps.both, torch.autograd.grad(loss, (weight, bias)), strict=True):
                assert parameter.grad is not None
                parameter.grad[layer].add_(slope[0])


def _scales(model: Loaded, ids: Tensor) -> Tensor:
    """Return the root mean square of the states of every layer but the last, shape (layer - 1, 1)."""
    squares, n = torch.zeros(len(model.blocks), device=ids.device), 0
    for states in _counted_states(model, ids):
        squares += states[:-1].square().mean(-1).sum(-1)
        n += states.shape[1]
    return (squares / n).sqrt()[:, None]


class _Maps:
    """The parameters at work; a bias is counted in the size of its layer's states."""

    def __init__(self, model: Loaded, scales: Tensor) -> None:
        self.width = state_width(model)
        n, device = len(scales), scales.device
        self.scales = scales
        self.weight = torch.zeros(n, self.width, self.width, device=device, requires_grad=True)
        self.bias = torch.zeros(n, self.width, device=device, requires_grad=True)

    @property
    def both(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.bias

    def translators(self) -> Translators:
        return Translators(self.weight, self.bias * self.scales)

    def copy(self) -> _Kept:
        return _Kept(self.weight.detach().clone(), (self.bias * self.scales).detach().clone())


@dataclass(frozen=True)
class _Kept:
    """The best parameters of each layer so far."""

    weight: Tensor
    bias: Tensor

    def take(self, maps: _Maps, better: Tensor) -> None:
        now = maps.copy()
        self.weight[better] = now.weight[better]
        self.bias[better] = now.bias[better]

    def translators(self) -> Translators:
        return Translators(self.weight.cpu(), self.bias.cpu())


def check_trainable(model: Loaded) -> None:
    """Refuse a model whose read-out is not a chain of modules: no gradient passes through it.

    Raises
    ------
    DynstatError
        X207.
    """
    if not isinstance(model.readout, ReadOut):
        raise DynstatError(
            "X207",
            f"no translators can be trained for {model.id!r}",
            where=model.readout.describe(),
            found="a read-out that runs the model itself",
            expected="a chain of modules after the last block",
            mend="leave `tuned` out",
        )


def main(arguments: list[str] | None = None) -> int:
    """Train from the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    try:
        model = _model(options.model, options.tokenizer, options.start_token)
        text, check = (read_text(check_running_text(f)) for f in (options.text, options.check))
        with one_deterministic_thread():
            made = train(
                model,
                text,
                Settings(epochs=options.epochs, seed=options.seed),
                lambda line: print(f"{line}, {time.monotonic() - started:.0f} s", flush=True),
            )
            ids = windows(model, check, str(options.check))
            before, after = divergences(model, ids), divergences(model, ids, made)
        measured = {
            "before": before.tolist(),
            "after": after.tolist(),
            "text_sha256": sha256_file(options.check),
        }
        about = {**made.about, "text_sha256": sha256_file(options.text), "checked": measured}
        save_translators(options.out, Translators(made.weight, made.bias, about))
    except DynstatError as error:
        print(error, file=sys.stderr)
        return int(error.exit)
    print(f"KL(final || lens) in nat on {options.check.name}: layer, plain, tuned")
    for layer, (a, b) in enumerate(zip(before.tolist(), after.tolist(), strict=True)):
        print(f"{layer:>4} {a:8.4f} {b:8.4f}")
    return 0


def _model(place: Path, tokenizer: Path | None, start_token: str) -> Loaded:
    kind = "gguf" if place.suffix == ".gguf" else "folder"
    source = locate(ModelSpec(place.stem, kind, str(place.absolute()), tokenizer=tokenizer))
    return load(source, encoder_of(load_tokenizer(source), start_token, f"model {place.stem!r}"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dynstat.extraction.training.tuned",
        description="Train the translators of the tuned lens.",
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of a model, or a GGUF file")
    parser.add_argument("--tokenizer", type=Path, help="folder of its tokenizer, where it is elsewhere")
    parser.add_argument("--start-token", default="bos", help="as in the panel: bos, none, or a token")
    parser.add_argument("--text", type=Path, required=True, help="text to train on")
    parser.add_argument("--out", type=Path, required=True, help="file to write, *.safetensors")
    parser.add_argument(
        "--check", type=Path, default=data_path(TEXT), help="other text, on which the result is measured"
    )
    parser.add_argument("--epochs", type=int, default=Settings.epochs, help="passes over the text, at most")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="of the order of windows")
    return parser


if __name__ == "__main__":
    sys.exit(main())
