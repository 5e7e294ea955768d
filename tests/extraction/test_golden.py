"""SmolLM2-135M-Instruct, whose answers are known: ids and perplexity of one text, and a capital.

Run with ``pytest -m slow`` where DYNSTAT_SMOLLM2 names the GGUF file: docs/extraction.md says how to get it.
"""

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import dynstat  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.stores.run import extract_panel  # noqa: E402

FILE = Path(os.environ.get("DYNSTAT_SMOLLM2", ""))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILE.is_file(), reason="DYNSTAT_SMOLLM2 names no file"),
]
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TEXT = (
    "The river rises in the hills above the town and runs slowly to the sea. In spring, when the snow melts, "
    "it floods the fields on both banks, and the farmers wait for the water to fall before they plough."
)
# As the tokenizer of the file gives them without its own start token; loaders have differed in this.
# fmt: off
IDS = [
    504, 4626, 13685, 281, 260, 12610, 2120, 260, 3102, 284, 7313, 6351, 288, 260, 3426, 30, 533,
    4921, 28, 645, 260, 5806, 34294, 28, 357, 15515, 260, 3705, 335, 1062, 7908, 28, 284, 260, 5283,
    5847, 327, 260, 913, 288, 2332, 1092, 502, 41650, 30,
]
# fmt: on
# By transformers 5.23.0 in float64, from the logits of one pass over IDS.
PERPLEXITY = 30.821967726647884
PANEL = """\
dynstat: panel/1
id: golden
models: [{{id: smollm2, gguf: {file}, weights_sha256: {sha256}, tokenizer: own}}]
prompts: {{file: prompts.csv, split: pilot}}
start_token: none
{more}
"""


def extracted(folder, text, more):
    with (folder / "prompts.csv").open("w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows([["id", "text", "category", "split"], ["p", text, "open", "pilot"]])
    panel = folder / "golden.yaml"
    panel.write_text(PANEL.format(file=FILE, sha256=SHA256, more=more), encoding="utf-8")
    ds = dynstat.open(extract_panel(load_panel(panel), folder / "store"))
    assert dynstat.verify(ds) == []
    return ds.isel(model=0, prompt=0, sample=0)


def test_perplexity_of_the_fixed_ids(tmp_path):
    run = extracted(tmp_path, TEXT, "mode: forced")
    assert run.token_id.values.tolist() == IDS
    lm = transformers.AutoModelForCausalLM.from_pretrained(
        str(FILE.parent), gguf_file=FILE.name, dtype=torch.float32, local_files_only=True
    )
    # Not lm.double(): transformers refuses to convert what came out of a GGUF file, though it is float32.
    torch.nn.Module.double(lm)
    with torch.inference_mode():
        logp = lm(torch.tensor([IDS])).logits[0].log_softmax(-1)
    truth = logp[:-1].gather(1, torch.tensor(IDS)[1:, None])[:, 0].numpy()
    assert math.exp(-truth.mean()) == pytest.approx(PERPLEXITY, rel=1e-9)
    spoken = run.log_probability.values[1:].astype(np.float64)
    np.testing.assert_allclose(spoken, truth, atol=5e-5)
    assert math.exp(-spoken.mean()) == pytest.approx(PERPLEXITY, rel=1e-5)
    # The lens of the last layer is the model's own distribution.
    entropy = -(logp.exp() * logp).sum(-1).numpy()
    np.testing.assert_allclose(run.entropy.values[:, -1], entropy, atol=1e-4)
    np.testing.assert_array_equal(run.top1_id.values[:, -1], logp.argmax(-1).numpy())


def test_a_capital(tmp_path):
    run = extracted(tmp_path, "The capital of France is", "samples: {greedy: true}\nbudget: 8")
    assert str(run.text.values).startswith(" Paris.")
