"""Store a trained model: float16 safetensors, configuration, and nothing that ends a run early."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from transformers import AutoModelForCausalLM, PreTrainedModel

from dynstat.files import write_atomic, write_json

from .tokenizer import END_OF_TEXT_ID

SEED = 0
CORPUS = "curated"


def folder_name(architecture: str, corpus: str = CORPUS, seed: int = SEED) -> str:
    """Name the folder of one model of the panel: architecture, corpus, seed."""
    return f"{architecture}-{corpus}-s{seed}"


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write a model's weights as float16 and its configuration.

    The tied output matrix is not written twice. The generation settings name no end of text: a run
    that generates from the model goes to its budget.

    Parameters
    ----------
    model : PreTrainedModel
        In float32.
    folder : Path
        Created if missing; gets ``model.safetensors``, ``config.json``, ``generation_config.json``.

    Raises
    ------
    DynstatError
        F002 where the folder cannot be written.
    """
    tensors = {name: p.detach().to(torch.float16).contiguous() for name, p in model.named_parameters()}
    write_atomic(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    config = model.config.to_diff_dict()
    config["architectures"] = [type(model).__name__]
    config["dtype"] = "float16"
    # The version that wrote the file would make its bytes depend on the day of the run.
    for key in ("transformers_version", "_name_or_path"):
        config.pop(key, None)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"bos_token_id": END_OF_TEXT_ID, "eos_token_id": None})


def load_model(folder: Path) -> PreTrainedModel:
    """Load a stored model in float32, every weight from the file.

    Parameters
    ----------
    folder : Path
        A folder that :func:`save_model` wrote.

    Returns
    -------
    PreTrainedModel
        In evaluation mode; its weights are exact float16 values.
    """
    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return model.eval()


def stored_dtypes(folder: Path) -> set[torch.dtype]:
    """Give the element types that occur in a stored model."""
    return {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()}
