"""Run ``python -m dynstat.extraction.training --corpora DIR --out data/models``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dynstat.errors import DynstatError
from dynstat.files import write_json

from .architectures import ARCHITECTURES
from .cards import write_cards
from .panel_text import panel_texts
from .store import folder_name, save_model
from .tokenizer import save_tokenizer, train_tokenizer
from .train import Recipe, one_deterministic_thread, train, training_record

DEFAULT = Recipe()


def main(arguments: list[str] | None = None) -> int:
    """Train the tokenizer and the models that are asked for, then write the cards.

    Parameters
    ----------
    arguments : list of str, optional
        Of the command line, if not given.

    Returns
    -------
    int
        Exit code of the command.
    """
    options = _parser().parse_args(arguments)
    try:
        with one_deterministic_thread():
            _run(options)
    except DynstatError as error:
        print(error, file=sys.stderr)
        return int(error.exit)
    return 0


def _run(options: argparse.Namespace) -> None:
    texts = panel_texts(options.corpora)
    tokenizer_folder = options.out / "tokenizer"
    # Prompts are matched under the tokenizer: one that is there is used and never made anew.
    if not (tokenizer_folder / "tokenizer.json").is_file():
        save_tokenizer(train_tokenizer(texts.curated, texts.raw), tokenizer_folder)
    recipe = replace(DEFAULT, steps=options.steps)
    tokens = None
    for architecture in () if options.cards else options.only or ARCHITECTURES:
        tokens = texts.encode(texts.curated, tokenizer_folder) if tokens is None else tokens
        model = train(
            architecture,
            tokens,
            recipe,
            options.work,
            stop_after=options.until,
            report=_reporter(architecture),
        )
        folder = options.out / folder_name(architecture)
        save_model(model, folder)
        updates = recipe.steps if options.until is None else min(options.until, recipe.steps)
        write_json(folder / "training.json", training_record(architecture, tokens, recipe, updates))
    if options.until is None:
        write_cards(options.out, recipe, texts, options.only or ARCHITECTURES)


def _reporter(architecture: str) -> Callable[[int, float], None]:
    begin = time.monotonic()

    def report(step: int, loss: float) -> None:
        print(
            f"{architecture} step {step} loss {loss:.4f} after {time.monotonic() - begin:.0f} s", flush=True
        )

    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dynstat.extraction.training", description=__doc__)
    parser.add_argument("--corpora", type=Path, required=True, help="folder with the four corpus files")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the models, data/models in a checkout"
    )
    parser.add_argument("--only", action="append", choices=ARCHITECTURES, help="train this one (repeatable)")
    parser.add_argument("--steps", type=int, default=DEFAULT.steps, help="updates of each model")
    parser.add_argument("--until", type=int, help="stop each model after this many updates, to go on later")
    parser.add_argument("--cards", action="store_true", help="measure stored models and write cards only")
    parser.add_argument("--work", type=Path, default=Path("scratch/training"), help="folder for checkpoints")
    return parser


if __name__ == "__main__":
    sys.exit(main())
