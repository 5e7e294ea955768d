"""The translators that come with dynstat: the manifest's files, the models' own, and as good as they say."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dynstat import data_path  # noqa: E402
from dynstat.extraction.lens.calibrate import windows  # noqa: E402
from dynstat.extraction.lens.translators import load_translators  # noqa: E402
from dynstat.extraction.models.encoding import encoder  # noqa: E402
from dynstat.extraction.models.loading import load  # noqa: E402
from dynstat.extraction.models.sources import locate  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.training.translator_manifest import main, manifest  # noqa: E402
from dynstat.extraction.training.tuned import divergences  # noqa: E402
from dynstat.files import sha256_file  # noqa: E402

PANEL = load_panel(data_path("panels/pilot.yaml"))
FOLDER = data_path("translators")
FILES = json.loads((FOLDER / "MANIFEST.json").read_text("utf-8"))["files"]


def test_the_manifest_lists_what_is_there():
    assert manifest(FOLDER)["files"] == FILES
    assert [name.removesuffix(".safetensors") for name in FILES] == sorted(m.id for m in PANEL.models)


def test_the_page_gives_the_manifest_s_figures(tmp_path):
    page = (FOLDER / "README.md").read_text("utf-8")
    for name, entry in FILES.items():
        pairs = zip(entry["checked"]["before"][:-1], entry["checked"]["after"][:-1], strict=True)
        row = " | ".join(f"{before:.2f} → {after:.2f}" for before, after in pairs)
        assert f"| `{name.removesuffix('.safetensors')}` | {row} |" in page
    assert main([str(tmp_path)]) == 0 and json.loads((tmp_path / "MANIFEST.json").read_text())["files"] == {}
    (tmp_path / "x.safetensors").write_bytes(b"")
    assert main([str(tmp_path)]) == 5


@pytest.mark.parametrize("spec", PANEL.models, ids=lambda s: s.id)
def test_translators_are_of_their_model_and_lower_every_divergence(spec):
    source = locate(spec)
    model = load(source, encoder(source, PANEL))
    maps = load_translators(FOLDER / f"{spec.id}.safetensors", model)
    checked = FILES[f"{spec.id}.safetensors"]["checked"]
    held_out = data_path("texts/held_out.txt")
    assert checked["text_sha256"] == sha256_file(held_out)
    assert FILES[f"{spec.id}.safetensors"]["text_sha256"] == sha256_file(data_path("texts/tuning.txt"))
    ids = windows(model, held_out.read_text("utf-8"))
    if spec is PANEL.models[0]:
        np.testing.assert_allclose(divergences(model, ids), checked["before"], atol=1e-3)
        np.testing.assert_allclose(divergences(model, ids, maps), checked["after"], atol=1e-3)
    else:  # of the others a part is read
        before, after = divergences(model, ids[::8]), divergences(model, ids[::8], maps)
        assert (after[:-1] < 0.8 * before[:-1]).all() and after[-1] == 0
