"""Tiny random models of every causal architecture that transformers can build, made from configs in memory.

Each is about 32 wide, has three layers and a vocabulary of 96; norms and biases are perturbed so that none
of them is trivial, and the scalars of the logits are set to values at which leaving them out shows.
"""

import inspect
import warnings
from functools import cache

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY, WIDTH, LAYERS = 96, 32, 3

# Every config takes those of its own names; the others are of other architectures.
GENERIC = {
    "vocab_size": VOCABULARY, "max_position_embeddings": 64, "n_positions": 64, "n_ctx": 64,
    "max_seq_len": 64, "context_length": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "is_decoder": True,
    "hidden_size": WIDTH, "d_model": WIDTH, "n_embd": WIDTH, "emb_dim": WIDTH, "attention_hidden_size": WIDTH,
    "word_embed_proj_dim": WIDTH, "embedding_size": WIDTH,
    "num_hidden_layers": LAYERS, "n_layer": LAYERS, "n_layers": LAYERS, "num_layers": LAYERS,
    "decoder_layers": LAYERS, "num_decoder_layers": LAYERS, "encoder_layers": 2, "num_encoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "num_key_value_heads": 2,
    "decoder_attention_heads": 4, "encoder_attention_heads": 4, "num_decoder_attention_heads": 4,
    "num_encoder_attention_heads": 4, "head_dim": 8, "rotary_dim": 4, "sliding_window": 8,
    "intermediate_size": 48, "ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_ffn_dim": 48,
    "ffn_hidden_size": 48,
    "shared_intermediate_size": 16, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_topk": 2,
    "n_shared_experts": 1, "num_shared_experts": 1, "first_k_dense_replace": 1, "topk_group": 1, "n_group": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "index_head_dim": 8, "index_n_heads": 16, "index_topk": 4,
    "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_n_heads": 8, "mamba_d_head": 8,
    "mamba_n_groups": 1, "mamba_chunk_size": 8, "mamba_dt_rank": 4, "mamba_num_heads": 8, "mamba_head_dim": 8,
    "state_size": 8, "ssm_state_size": 8, "expand": 2, "conv_kernel": 4, "time_step_rank": 4, "n_groups": 1,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8,
    # Scalars between the state and the logits, none of them harmless.
    "final_logit_softcapping": 2.0, "logits_soft_cap": 2.0, "output_logit_soft_cap": 2.0,
    "logit_scale": 0.0625, "logits_scaling": 8.0, "lm_head_multiplier": 0.25,
    "logits_mup_width_multiplier": 4.0,
    "dim_model_base": 8, "embedding_multiplier": 12.0, "scale_emb": 12.0,
    "unpadded_vocab_size": VOCABULARY - 6,
}  # fmt: skip

_MIXED = ["linear_attention", "full_attention", "linear_attention"]
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}

# What an architecture needs beyond that, or in another way.
SPECIAL = {
    **{
        name: {"num_key_value_heads": 4}
        for name in (
            "axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite",
            "glm_moe_dsa", "minicpm3", "youtu",
        )
    },
    **{name: {"layer_types": _MIXED} for name in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")},
    "bamba": {"attn_layer_indices": [1]},
    "blt": {
        "encoder_hash_byte_group_vocab": 64, "encoder_hash_byte_group_size": [3, 4],
        **{
            f"{part}_config": {
                "vocab_size": 260, "hidden_size": WIDTH, "hidden_size_global": WIDTH, "intermediate_size": 48,
                "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 4,
            }
            for part in ("patcher", "encoder", "decoder", "global")
        },
    },
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
    },
    "cpmant": {"dim_ff": 48, "dim_head": 8, "prompt_length": 4},
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots3_note_text": {
        "num_key_value_heads": 4, "shared_experts_intermediate_size": 16, "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4, "swa_q_lora_rank": 16, "swa_kv_lora_rank": 16, "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8,
    },
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_hidden_layers": 4, "num_kv_shared_layers": 2, "intermediate_size": 48,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "activation_sparsity_pattern": [0.0] * 4,
    },
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"num_experts_per_token": 2, "linear_head_dim": 8, "linear_num_heads": 4,
                    "num_key_value_heads": 4},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "longcat_flash": {"expert_ffn_hidden_size": 16, "zero_expert_num": 2, "num_key_value_heads": 4},
    "mamba2": {"head_dim": 16},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {
        "axial_pos_embds_dim": [8, 24], "axial_pos_shape": [8, 8], "attention_head_size": 8,
        "feed_forward_size": 48, "attn_layers": ["local", "local", "local"], "local_attn_chunk_length": 4,
    },
    "roc_bert": {
        "pronunciation_embed_dim": 8, "pronunciation_vocab_size": 96, "shape_embed_dim": 8,
        "shape_vocab_size": 96,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "attention_head_dim": 16, "num_key_value_heads": 4,
        "attention_hidden_size": 64, "num_hidden_layers": 6,
    },
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid", "mamba"], "hybrid_layer_ids": [1], "num_key_value_heads": 4,
        "mamba_headdim": 8, "n_mamba_heads": 8, "attention_hidden_size": 64, "attention_head_dim": 16,
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}  # fmt: skip


# Types of one architecture that differ where it matters: name, architecture, entries of the config.
TYPES = {
    "opt (350M type)": ("opt", {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "falcon (40B type)": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "gpt_neox (sequential)": ("gpt_neox", {"use_parallel_residual": False}),
    "stablelm (parallel)": ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
    "olmo (tied)": ("olmo", {"tie_word_embeddings": True}),
    "gemma2 (no cap)": ("gemma2", {"final_logit_softcapping": None}),
}  # fmt: skip

# What transformers lists as causal and is not read, and why.
_MULTIMODAL = [
    "dots3_note", "emu3", "fuyu", "gemma3", "gemma3n", "gemma4", "gemma4_unified", "git", "got_ocr2",
    "llama4", "mllama", "moshi", "moss_transcribe_diarize", "phi4_multimodal", "qwen3_5",
    "qwen3_5_moe", "qwen4_exp",
]  # fmt: skip
NOT_READ = {
    "blt": "it reads bytes in patches, and its local and global layers have different positions",
    "cpmant": "it puts prompt tokens of its own before the text, so that states and tokens do not match",
    "gemma3n_text": "it runs four copies of the state side by side, along the first axis",
    "hrm_text": "it calls the same layers again and again, so that a layer has several states",
    "inkling2_text": "its last step looks back at earlier layers, so that no single state gives the logits",
    "prophetnet": "it predicts several tokens at once from several streams",
    "reformer": "it keeps two streams that are computed from one another",
    "xlm": "it has no layers: attention and feed-forward lie in lists of their own",
    "xlnet": "it reads in permuted order",
    **dict.fromkeys(_MULTIMODAL, "multimodal; its text part is read where it is an architecture of its own"),
    **dict.fromkeys(["musicgen", "musicgen_melody"], "it writes several streams of audio codes, no text"),
    **dict.fromkeys(
        ["gemma4_assistant", "gemma4_unified_assistant"], "it drafts for another model, whose states it reads"
    ),
}


def causal() -> list[str]:
    """Names of all architectures that transformers lists as causal."""
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def readable() -> list[str]:
    """Names of those to be read, types of the same architecture included."""
    known = causal()
    return [a for a in known if a not in NOT_READ] + [t for t, (a, _) in TYPES.items() if a in known]


@cache
def config(name: str):
    """Build the config of one architecture in its tiny form."""
    architecture, more = TYPES.get(name, (name, {}))
    kind = CONFIG_MAPPING[architecture]
    known = {**kind().to_dict(), **inspect.signature(kind).parameters}
    own = {k: v for k, v in GENERIC.items() if k in known} | SPECIAL.get(architecture, {}) | more
    return kind(**own)


def build(name: str, seed: int = 0, dtype=torch.float32):
    """Build a tiny random model, ready to be read."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lm = transformers.AutoModelForCausalLM.from_config(config(name), dtype=torch.float32)
    lm = lm.eval().requires_grad_(False)
    for parameter in lm.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter) * (1.0 if parameter.ndim == 1 else 0.5))
    return lm.to(dtype)


def steps(readout) -> str:
    """Say what stands between the last state and the logits, without the numbers of the tiny form."""
    out = [type(m).__name__ for m in readout.chain]
    if readout.linear is not None and readout.linear.bias is not None:
        out[-1] += " with bias"
    if readout.pre_head != 1.0:
        out.insert(-1, "÷ number")
    out += ["× number"] * (readout.scale != 1.0)
    out += ["soft cap"] * (readout.soft_cap is not None)
    return " → ".join(out)


def row(name: str, lm, readout) -> str:
    """One row of the table in docs/architectures.md."""
    return f"| `{name}` | {type(lm).__name__} | {steps(readout)} |"


def not_read() -> list[str]:
    """Rows of the second table of docs/architectures.md."""
    return [f"| `{name}` | {reason} |" for name, reason in NOT_READ.items()]


if __name__ == "__main__":
    from dynstat.extraction.models.capture import blocks_of
    from dynstat.extraction.models.discovery import trace

    for known in sorted(readable()):
        built = build(known)
        print(row(known, built, trace(built, blocks_of(built), known)))
    print("\n".join(not_read()))
