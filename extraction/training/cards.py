"""Write the cards of the models: every number in them is measured or read from the run's own record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from transformers import PreTrainedModel

from dynstat.errors import DynstatError
from dynstat.files import read_text, sha256_bytes, sha256_file, write_atomic, write_json

from .architectures import FACTORS, HEADS, LAYERS, WIDTH, parameters
from .corpora import HELD_OUT, SHA256
from .evaluate import Baselines, fit_baselines, model_loss
from .panel_pages import model_page, panel_page
from .panel_text import Texts
from .store import CORPUS, SEED, folder_name, load_model
from .tokenizer import CONTEXT, VOCABULARY
from .train import Recipe

LICENCE = "CC0-1.0"
DIGITS = 4


def write_cards(out: Path, recipe: Recipe, texts: Texts, chosen: Sequence[str]) -> None:
    """Measure stored models and write their cards and the page of the panel.

    Parameters
    ----------
    out : Path
        Folder of the models, with the tokenizer in ``tokenizer/``.
    recipe : Recipe
        With which the models were trained; a model of another recipe is refused.
    texts : Texts
        Training text (for unigram and bigram) and held-out text.
    chosen : sequence of str
        Architectures whose cards are written; the page of the panel lists all cards that exist.

    Raises
    ------
    DynstatError
        S404 where a stored model was trained with another recipe or not to its end.
    """
    tokenizer_folder = out / "tokenizer"
    baselines = fit_baselines(texts.encode(texts.curated, tokenizer_folder))
    corpora = texts.held_out_corpora()
    tokens = {name: texts.encode(text, tokenizer_folder) for name, text in corpora.items()}
    for architecture in chosen:
        folder = out / folder_name(architecture)
        card = _card(architecture, folder, tokenizer_folder, recipe, baselines, tokens)
        write_json(folder / "card.json", card)
        write_atomic(folder / "README.md", model_page(card))
        (folder / "training.json").unlink(missing_ok=True)
    found = [out / folder_name(name) / "card.json" for name in FACTORS]
    panel = {
        "tokenizer": _tokenizer_card(tokenizer_folder, texts, corpora, tokens),
        "models": [_summary(json.loads(read_text(path))) for path in found if path.is_file()],
        "licence": LICENCE,
    }
    write_json(out / "models.json", panel)
    write_atomic(out / "README.md", panel_page(panel))


def _card(
    architecture: str,
    folder: Path,
    tokenizer_folder: Path,
    recipe: Recipe,
    baselines: Baselines,
    tokens: dict[str, np.ndarray],
) -> dict[str, Any]:
    training = _training(folder, recipe)
    model = load_model(folder)
    weights = folder / "model.safetensors"
    return {
        "name": folder.name,
        "architecture": architecture,
        "class": type(model).__name__,
        "parameters": parameters(model),
        "layers": LAYERS,
        "width": WIDTH,
        "heads": HEADS,
        "mlp_width": _mlp_width(model),
        "vocabulary": VOCABULARY,
        "context": CONTEXT,
        "factors": FACTORS[architecture].as_dict(),
        "corpus": {
            "name": CORPUS,
            "sources_sha256": SHA256,
            "held_out": {name: [book.title for book in books] for name, books in HELD_OUT.items()},
        },
        "seed": SEED,
        "training": training,
        "weights": {
            "file": weights.name,
            "sha256": sha256_file(weights),
            "bytes": weights.stat().st_size,
            "dtype": _dtype(weights),
        },
        "config_sha256": sha256_file(folder / "config.json"),
        "tokenizer_sha256": sha256_file(tokenizer_folder / "tokenizer.json"),
        "losses": {name: _losses(model, baselines, ids) for name, ids in tokens.items()},
        "bigram_discount": baselines.discount,
        "licence": LICENCE,
    }


def _training(folder: Path, recipe: Recipe) -> dict[str, Any]:
    record = folder / "training.json"
    if record.is_file():
        training = json.loads(read_text(record))
    else:
        training = json.loads(read_text(folder / "card.json"))["training"]
    wanted = {"recipe": asdict(recipe), "updates": recipe.steps}
    found = {key: training[key] for key in wanted}
    if found != wanted:
        raise DynstatError(
            "S404",
            "a stored model was not trained to the end of this recipe",
            where=str(folder),
            found=json.dumps(found, sort_keys=True),
            expected=json.dumps(wanted, sort_keys=True),
            mend="train it to the end, or give --steps as it was trained",
        )
    return training


def _mlp_width(model: PreTrainedModel) -> int:
    config = model.config
    for key in ("intermediate_size", "ffn_dim", "n_inner"):
        if getattr(config, key, None) is not None:
            return int(getattr(config, key))
    raise KeyError(type(model).__name__)


def _dtype(weights: Path) -> str:
    with safe_open(weights, "pt") as tensors:
        return " ".join(sorted({str(tensors.get_slice(key).get_dtype()) for key in tensors.keys()}))


def _losses(model: PreTrainedModel, baselines: Baselines, tokens: np.ndarray) -> dict[str, float | int]:
    unigram, bigram = baselines.losses(tokens)
    own = model_loss(model, tokens)
    return {
        "model": round(own, DIGITS),
        "unigram": round(unigram, DIGITS),
        "bigram": round(bigram, DIGITS),
        "below_bigram": round(bigram - own, DIGITS),
        "tokens": len(tokens) // CONTEXT * CONTEXT,
    }


def _tokenizer_card(
    folder: Path, texts: Texts, corpora: dict[str, str], tokens: dict[str, np.ndarray]
) -> dict[str, Any]:
    return {
        "folder": folder.name,
        "vocabulary": VOCABULARY,
        "sha256": sha256_file(folder / "tokenizer.json"),
        "curated_text_sha256": sha256_bytes(texts.curated.encode()),
        "raw_text_sha256": sha256_bytes(texts.raw.encode()),
        "bytes_per_token": {
            name: round(len(text.encode()) / len(tokens[name]), DIGITS) for name, text in corpora.items()
        },
    }


def _summary(card: dict[str, Any]) -> dict[str, Any]:
    curated = card["losses"]["curated"]
    return {
        "name": card["name"],
        "class": card["class"],
        "parameters": card["parameters"],
        "factors": {
            "architecture": card["architecture"],
            "corpus": card["corpus"]["name"],
            **card["factors"],
        },
        "seed": card["seed"],
        "weights_sha256": card["weights"]["sha256"],
        "bytes": card["weights"]["bytes"],
        "losses": {name: losses["model"] for name, losses in card["losses"].items()},
        "curated_bigram": curated["bigram"],
        "below_bigram": curated["below_bigram"],
    }
