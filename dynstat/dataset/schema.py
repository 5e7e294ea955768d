"""The schema of a labelled dataset: dims, coordinates, variables that are always there, flags, attributes.

This file is data; `build` writes by it, `verify` checks by it, and docs/schema.md is tested against it.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = "dynstat-data-1"
CONVENTIONS = f"CF-1.11 ACDD-1.3 {SCHEMA}"
DIMS = ("model", "prompt", "sample", "token", "layer")
RUN, TOKEN, LAYER = DIMS[:3], DIMS[:4], DIMS
LEVEL_DIMS = {"run": RUN, "token": TOKEN, "layer": LAYER}
KINDS = ("panel", "dose", "states", "pairs", "measurements")
# What models were run for, so that every variable and coordinate that is always there is asked for.
EXTRACTED = ("panel", "dose")

QUALITY = ("ok", "padding", "nonfinite", "truncated", "not_extracted", "no_such_layer")
OK, PADDING, NONFINITE, TRUNCATED, NOT_EXTRACTED, NO_SUCH_LAYER = range(6)
PHASE = ("prompt", "generated")
STOP_REASONS = ("budget", "context", "forced", "end_of_text")
SEPARATOR = " | "  # between the entries of `answers` and `distractors`, as in the prompt files

_REFERENCE = f"dynstat data schema {SCHEMA}"


@dataclass(frozen=True)
class Variable:
    """One coordinate or data variable of the schema.

    Attributes
    ----------
    dtype : str
        NumPy name, or "str" for variable-length UTF-8 text.
    fill : object
        The value where there is nothing: padding, runs that were not extracted.
    required : bool
        Whether `verify` misses it in a dataset of kind "panel".
    undefined : tuple of str
        As in `dynstat.registry.Metric`.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    long_name: str
    fill: object
    units: str = "1"
    valid_min: float | None = None
    valid_max: float | None = None
    flags: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    required: bool = True
    origin: str = "dynstat"
    reference: str = _REFERENCE

    @property
    def definition(self) -> str:
        """``name@version`` of the definition."""
        return f"{self.name}@1"


def _table(*rows: Variable) -> dict[str, Variable]:
    return {row.name: row for row in rows}


_I32 = 2**31 - 1
_I64 = 2**63 - 1

COORDINATES = _table(
    Variable("model", ("model",), "str", "model identifier", ""),
    Variable("revision", ("model",), "str", "revision of the model repository", ""),
    Variable("family", ("model",), "str", "model family", ""),
    Variable("architecture", ("model",), "str", "architecture, as the model's configuration names it", ""),
    Variable("parameters", ("model",), "int64", "number of parameters", 0, "1", 0, _I64),
    Variable("vocabulary", ("model",), "int32", "number of valid tokens", 0, "1", 0, _I32),
    Variable(
        "largest_id",
        ("model",),
        "int32",
        "largest valid token id where some below it are not valid, -1 where none is left out",
        -1,
        "1",
        -1,
        _I32,
        required=False,
    ),
    Variable(
        "layers",
        ("model",),
        "int32",
        "number of layer indices, the input of the first block included",
        1,
        "1",
        1,
        _I32,
    ),
    Variable("weights_sha256", ("model",), "str", "SHA-256 of the weights", ""),
    Variable("tokenizer_sha256", ("model",), "str", "SHA-256 of the tokenizer", ""),
    Variable("dtype", ("model",), "str", "number format the model was run in", ""),
    Variable("attn_implementation", ("model",), "str", "implementation of attention", ""),
    Variable("source", ("model",), "str", "where the model was read from; not part of the content hash", ""),
    Variable("prompt", ("prompt",), "str", "prompt identifier", ""),
    Variable("prompt_text", ("prompt",), "str", "text of the prompt", ""),
    Variable("category", ("prompt",), "str", "category of the prompt", ""),
    Variable("template", ("prompt",), "str", "template the prompt was made from", ""),
    Variable("split", ("prompt",), "str", "split of the prompt file: pilot, panel, confirmation", ""),
    Variable("answers", ("prompt",), "str", f"accepted answers, separated by '{SEPARATOR}'", ""),
    Variable(
        "distractors", ("prompt",), "str", f"wrong answers of the same kind, separated by '{SEPARATOR}'", ""
    ),
    Variable("sample", ("sample",), "str", "sample identifier", ""),
    Variable("seed", ("sample",), "int64", "seed of sampling, -1 for greedy decoding", -1, "1", -1, _I64),
    Variable(
        "temperature", ("sample",), "float64", "sampling temperature, 0 for greedy decoding", 0.0, "1", 0.0
    ),
    Variable("budget", ("sample",), "int32", "largest number of generated tokens", 0, "token", 0, _I32),
    Variable("mode", ("sample",), "str", "generated, or forced where the text was given", ""),
    Variable("kind", ("sample",), "str", "kind of intervention", "", required=False),
    Variable(
        "target_layer",
        ("sample",),
        "int32",
        "layer of the intervention, -1 for none",
        -1,
        "1",
        -1,
        _I32,
        required=False,
    ),
    Variable("dose", ("sample",), "float64", "strength of the intervention", 0.0, "1", required=False),
    Variable(
        "intervention_phase",
        ("sample",),
        "str",
        "tokens at which the intervention acts: all, prompt or generated",
        "",
        required=False,
    ),
    Variable("token", ("token",), "int32", "position in the sequence, from 0", 0, "1", 0, _I32),
    Variable(
        "layer",
        ("layer",),
        "int32",
        "0 the input of the first block, i the output of block i",
        0,
        "1",
        0,
        _I32,
    ),
    Variable(
        "relative_depth",
        ("model", "layer"),
        "float64",
        "layer divided by the model's last layer, -1 where the model has no such layer",
        -1.0,
        "1",
        -1.0,
        1.0,
    ),
)

ALWAYS = _table(
    Variable("quality", LAYER, "int8", "quality of the point", PADDING, "1", 0, len(QUALITY) - 1, QUALITY),
    Variable(
        "token_id", TOKEN, "int32", "vocabulary index of the token read, -1 for none", -1, "1", -1, _I32
    ),
    Variable(
        "top1_id",
        LAYER,
        "int32",
        "vocabulary index of the most probable next token, -1 for none",
        -1,
        "1",
        -1,
        _I32,
    ),
    Variable(
        "phase",
        TOKEN,
        "int8",
        "whether the token belongs to the prompt or was generated",
        0,
        "1",
        0,
        1,
        PHASE,
    ),
    Variable(
        "is_special", TOKEN, "int8", "1 where the token is a special token", 0, "1", 0, 1, ("no", "yes")
    ),
    Variable("is_first", TOKEN, "int8", "1 at the first token of the sequence", 0, "1", 0, 1, ("no", "yes")),
    Variable(
        "log_probability",
        TOKEN,
        "float32",
        "log-probability of the token read given the tokens before it",
        float("nan"),
        "nat",
        None,
        0.0,
        (),
        ("first_tokens:1",),
        origin="published",
        reference="Shannon 1948, A Mathematical Theory of Communication",
    ),
    Variable("text", RUN, "str", "generated text", ""),
    Variable("n_prompt", RUN, "int32", "number of tokens of the prompt", 0, "token", 0, _I32),
    Variable("n_generated", RUN, "int32", "number of generated tokens", 0, "token", 0, _I32),
    Variable("stop_reason", RUN, "str", "what ended the run: budget, context, forced or end_of_text", ""),
    Variable(
        "first_end_of_text",
        RUN,
        "int32",
        "index of the first end-of-text token among the generated ones, -1 for none",
        -1,
        "1",
        -1,
        _I32,
    ),
)

# Where a definition may have no value at a valid point.
MARKS = ("first_tokens:K", "last_layer", "last_token", "frozen", "missing_input")

# What `verify` demands of every data variable; numeric ones also carry units and a range.
VARIABLE_ATTRS = {
    "long_name": "what the variable is, in words",
    "units": "units, `1` where dimensionless (numeric variables)",
    "valid_min": "smallest value allowed, in the variable's own number type (numeric variables)",
    "valid_max": "largest value allowed, in the variable's own number type (numeric variables)",
    "definition": "`name@version` of the definition in dynstat's registry, or of the user's own",
    "origin": "`published`, or `dynstat` where this project had to choose the formula, or `user`",
    "reference": "the source of the definition",
}
OPTIONAL_ATTRS = {
    "flag_values": "codes of a categorical variable",
    "flag_meanings": "their meanings, separated by blanks",
    "undefined": "where the definition has no value at a valid point, separated by blanks: `first_tokens:K`, "
    "`last_layer`, `last_token`, `frozen`, `missing_input`",
    "options": "options of the definition as JSON",
    "readout": "the read-out variant, where it is not the plain logit lens; `readout_...` are its settings",
    "role": "`factor` on coordinates that come from `factors:` of the panel",
}
ROOT_ATTRS = {
    "Conventions": "names of the conventions followed",
    "title": "one line",
    "summary": "a paragraph",
    "license": "licence of the data",
    "history": "what was done to the data, a line a step",
    "date_created": "date and time in UTC, ISO 8601",
    "creator_name": "who made the data",
    "creator_type": "kind of creator: person, group, institution or position",
    "dynstat_kind": "what the file is: panel, dose, states, pairs or measurements",
    "dynstat_version": "version of dynstat that wrote it",
    "dynstat_schema": f"`{SCHEMA}`",
}
PANEL_ATTRS = {
    "inputs": "canonical JSON of what determines the values: prompts, models, settings; locks bind its hash",
    "panel_sha256": "SHA-256 of the panel file",
    "provenance": "JSON: library versions, threads, device, times; not part of the content hash",
}
ORDER_ATTRS = {
    "prompt_order": "JSON list of prompt identifiers in their order, for shards",
    "sample_order": "JSON list of sample identifiers in their order, for shards",
    "shards": "JSON list of the shards that a combined file was made from",
    "item": "canonical JSON of what determines a shard's content; its SHA-256 begins with the shard's name",
    "content_sha256": "content hash of what was written; it belongs to the file, and opening takes it out",
    "inputs_combined": "JSON list of the different `inputs`, where datasets of several panels were combined",
}


_ORDER = {
    name: i for i, name in enumerate((*COORDINATES, *ALWAYS, *ROOT_ATTRS, *VARIABLE_ATTRS, *OPTIONAL_ATTRS))
}


def rank(name: str) -> tuple[int, str]:
    """Order names as the schema does, others by the alphabet: engines return them in orders of their own."""
    return (_ORDER.get(name, len(_ORDER)), name)


def is_mark(word: str) -> bool:
    """Say whether a word can stand in the attribute `undefined`."""
    name, _, count = word.partition(":")
    return word in MARKS[1:] or (name == "first_tokens" and count.isdecimal())


def base_name(variable: str) -> str:
    """Return the metric's name of a variable: ``entropy__no_norm`` is a read-out variant of ``entropy``."""
    return variable.partition("__")[0]
