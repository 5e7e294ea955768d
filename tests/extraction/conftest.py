"""Tiny random models of the six architectures in the layout of a real one, and panels on them."""

import csv
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from dynstat import data_path  # noqa: E402
from dynstat.extraction.panels import user_metrics  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.training.architectures import ARCHITECTURES, build  # noqa: E402

LAYERS = 3
TEXTS = ["The king said", "A ship came home", "Once there was a little", "In the beginning", "She read"]


def tiny(architecture: str, seed: int = 0):
    """A random model whose norms and biases are not trivial and whose distributions are not flat."""
    model = build(architecture, seed, LAYERS).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        else:
            parameter.mul_(5.0)
    return model


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    for architecture in ARCHITECTURES:
        tiny(architecture).save_pretrained(root / architecture)
    return {a: root / a for a in ARCHITECTURES}


def write_prompts(path: Path, texts=TEXTS, split: str = "pilot") -> Path:
    with path.open("w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["id", "text", "category", "split"])
        for i, text in enumerate(texts):
            writer.writerow([f"p{i}", text, "open" if i % 2 else "factual", split])
    return path


PANEL = """\
dynstat: panel/1
id: test
models:
{models}
tokenizer: data:models/tokenizer
prompts: {{file: prompts.csv, split: {split}}}
{samples}
budget: {budget}
mode: {mode}
start_token: <|endoftext|>
{more}
"""


@pytest.fixture
def write_panel(tmp_path, model_folders):
    """Write a panel file and its prompts; returns the panel's path."""

    def write(
        models=("gpt2", "llama"),
        *,
        texts=TEXTS,
        split="pilot",
        samples="samples: {seeds: [0, 1], temperatures: [1.0]}",
        budget=6,
        mode="generated",
        more="",
        folder=None,
    ) -> Path:
        folder = folder or tmp_path
        folder.mkdir(exist_ok=True)
        write_prompts(folder / "prompts.csv", texts, split)
        lines = "\n".join(
            m
            if m.startswith("  - ")
            else f"  - {{id: {m}, path: {model_folders[m]}, factors: {{make: {m}}}}}"
            for m in models
        )
        text = PANEL.format(models=lines, split=split, samples=samples, budget=budget, mode=mode, more=more)
        (folder / "panel.yaml").write_text(text, encoding="utf-8")
        return folder / "panel.yaml"

    return write


@pytest.fixture
def copy_model(tmp_path, model_folders):
    """Copy a model's folder, so that a test may damage it."""

    def copy(architecture: str = "llama") -> Path:
        return Path(shutil.copytree(model_folders[architecture], tmp_path / f"copy-{architecture}"))

    return copy


@pytest.fixture
def load_tiny(write_panel):
    """Load a tiny model as a panel would."""
    from dynstat.extraction.models.encoding import encoder
    from dynstat.extraction.models.loading import load
    from dynstat.extraction.models.sources import locate

    def get(architecture: str):
        panel = load_panel(write_panel((architecture,)))
        source = locate(panel.models[0])
        return load(source, encoder(source, panel))

    torch.set_num_threads(1)
    return get


@pytest.fixture(scope="session")
def tokenizer_folder() -> Path:
    return data_path("models/tokenizer")


@pytest.fixture(autouse=True)
def no_metrics_of_users_stay():
    """The registry is one for all tests of a process."""
    yield
    for file in list(user_metrics._active):
        user_metrics.forget(file)
