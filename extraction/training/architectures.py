"""The six architectures of the embedded panel, all with the same depth, width, heads and vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from .tokenizer import CONTEXT, END_OF_TEXT_ID, VOCABULARY

LAYERS, WIDTH, HEADS = 8, 64, 4
INITIALIZER_RANGE = 0.02


@dataclass(frozen=True)
class Factors:
    """Say in which ways an architecture differs from the others.

    Attributes
    ----------
    norm, positions, activation : str
        Kind of normalisation, of position code and of the MLP.
    parallel_block : bool
        Whether attention and MLP read the same input.
    biases : str
        Where linear maps have biases.
    tied : bool
        Whether the output matrix is the input embedding.
    pair : str
        The near-pair of the panel to which the architecture belongs.
    """

    norm: str
    positions: str
    parallel_block: bool
    activation: str
    biases: str
    tied: bool
    pair: str

    def as_dict(self) -> dict[str, str | bool]:
        """Give the factors as a plain mapping."""
        return asdict(self)


FACTORS: dict[str, Factors] = {
    "gpt2": Factors("layernorm", "learned", False, "gelu_new", "all", True, "gpt2-opt"),
    "opt": Factors("layernorm", "learned", False, "relu", "all", True, "gpt2-opt"),
    "neox": Factors("layernorm", "rotary 25 %", True, "gelu", "all", True, "neox-phi"),
    "llama": Factors("rmsnorm", "rotary", False, "swiglu", "none", True, "llama-qwen2"),
    "qwen2": Factors("rmsnorm", "rotary", False, "swiglu", "query, key, value", True, "llama-qwen2"),
    "phi": Factors("layernorm", "rotary 50 %", True, "gelu_new", "all, output matrix too", True, "neox-phi"),
}
ARCHITECTURES: tuple[str, ...] = tuple(FACTORS)


def configuration(architecture: str, layers: int = LAYERS) -> PretrainedConfig:
    """Build the configuration of one architecture.

    Parameters
    ----------
    architecture : str
        One of :data:`ARCHITECTURES`.
    layers : int, optional
        Number of blocks; 8 in the panel, fewer in tests.

    Returns
    -------
    PretrainedConfig
        No dropout, tied embeddings, context 256; beginning and end of text are token 0.

    Raises
    ------
    KeyError
        The architecture is unknown.
    """
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "bos_token_id": END_OF_TEXT_ID,
        "eos_token_id": END_OF_TEXT_ID,
        "pad_token_id": None,
        "tie_word_embeddings": True,
        "initializer_range": INITIALIZER_RANGE,
    }
    blocks: dict[str, Any] = {
        **common,
        "hidden_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "max_position_embeddings": CONTEXT,
        "attention_dropout": 0.0,
    }
    rotary: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    builders: dict[str, Callable[[], PretrainedConfig]] = {
        "gpt2": lambda: GPT2Config(
            **common,
            n_embd=WIDTH,
            n_layer=layers,
            n_head=HEADS,
            n_inner=256,
            n_positions=CONTEXT,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        ),
        "opt": lambda: OPTConfig(
            **{name: value for name, value in blocks.items() if name != "initializer_range"},
            init_std=INITIALIZER_RANGE,
            ffn_dim=256,
            word_embed_proj_dim=WIDTH,
            dropout=0.0,
            layerdrop=0.0,
        ),
        "neox": lambda: GPTNeoXConfig(
            **blocks,
            intermediate_size=256,
            hidden_dropout=0.0,
            rope_parameters={**rotary, "partial_rotary_factor": 0.25},
        ),
        "llama": lambda: LlamaConfig(
            **blocks, intermediate_size=172, num_key_value_heads=HEADS, rope_parameters=rotary
        ),
        "qwen2": lambda: Qwen2Config(
            **blocks, intermediate_size=172, num_key_value_heads=HEADS, rope_parameters=rotary
        ),
        "phi": lambda: PhiConfig(
            **blocks,
            intermediate_size=256,
            num_key_value_heads=HEADS,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            rope_parameters={**rotary, "partial_rotary_factor": 0.5},
        ),
    }
    return builders[architecture]()


def build(architecture: str, seed: int = 0, layers: int = LAYERS) -> PreTrainedModel:
    """Build one model with fresh weights.

    Parameters
    ----------
    architecture : str
        One of :data:`ARCHITECTURES`.
    seed : int, optional
        Seed of the initial weights.
    layers : int, optional
        Number of blocks.

    Returns
    -------
    PreTrainedModel
        In float32, for training.

    Raises
    ------
    KeyError
        The architecture is unknown.
    """
    model = AutoModelForCausalLM.from_config(configuration(architecture, layers), dtype=torch.float32)
    initialise(model, seed)
    return model


def initialise(model: PreTrainedModel, seed: int) -> None:
    """Draw fresh weights: matrices normal with deviation 0.02, norms 1, biases 0.

    The classes of transformers differ here (GPT-2 draws its residual projections smaller, OPT its
    positions wider); initialisation alike in all keeps that difference out of the panel.

    Parameters
    ----------
    model : PreTrainedModel
        Changed in place.
    seed : int
        Seed of the draws, made in the order of the model's parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, INITIALIZER_RANGE, generator=generator)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def parameters(model: PreTrainedModel) -> int:
    """Count the parameters of a model, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
