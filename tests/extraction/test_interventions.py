"""Interventions: exact where they act, nothing elsewhere, the same while writing and while reading."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from scipy import stats  # noqa: E402

import dynstat  # noqa: E402
from dynstat.errors import DynstatError  # noqa: E402
from dynstat.extraction.models.capture import captured, states  # noqa: E402
from dynstat.extraction.panels.panel import Intervention, Sample, load_panel  # noqa: E402
from dynstat.extraction.runs.cache import relative_difference  # noqa: E402
from dynstat.extraction.runs.generate import generate  # noqa: E402
from dynstat.extraction.runs.interventions import (  # noqa: E402
    Changes,
    check_interventions,
    direction,
    intervening,
)
from dynstat.extraction.runs.reading import read_runs  # noqa: E402
from dynstat.extraction.stores.plan import Plan  # noqa: E402
from dynstat.extraction.stores.run import extract_panel  # noqa: E402

from .conftest import TEXTS  # noqa: E402
from .test_reading import all_states, rows, tiny  # noqa: E402

FORMS = ("gpt2", "opt", "gemma2", "mamba", "lfm2", "openai-gpt")
N_PROMPT, STEPS = 5, 6


def sample(
    kind: str = "noise", layer: int = 1, dose: float = 0.5, phase: str = "all", seed: int = 0
) -> Sample:
    return Sample(f"s{seed}", seed, 0.9, STEPS, "generated", Intervention(kind, layer, dose, phase))


def changes(*samples: Sample, prompts=("a", "b"), model="m") -> Changes:
    return Changes(model, prompts, samples, [N_PROMPT] * len(prompts))


def read(model, ids, what: Changes | None, samples: int = 1):
    return all_states(read_runs(model, ids, samples, N_PROMPT, changes=what))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["noise", "scale", "damp"])
def test_nothing_changes_below_the_layer_before_the_token_or_at_dose_zero(form, kind):
    model, ids = tiny(form), rows(2, 1, N_PROMPT, STEPS)
    plain = read(model, ids, None)
    for layer in range(len(model.blocks) + 1):
        assert torch.equal(read(model, ids, changes(sample(kind, layer, 0.0))), plain)
        late = read(model, ids, changes(sample(kind, layer, 0.5, "generated")))
        assert torch.equal(late[:layer], plain[:layer])
        assert torch.equal(late[:, :, :N_PROMPT], plain[:, :, :N_PROMPT])
        assert (late[layer:, :, N_PROMPT:] != plain[layer:, :, N_PROMPT:]).any(-1).all()
        early = read(model, ids, changes(sample(kind, layer, 0.5, "prompt")))
        assert torch.equal(early[:layer], plain[:layer])
        assert torch.equal(early[layer, :, N_PROMPT:], plain[layer, :, N_PROMPT:])
        assert (early[layer, :, :N_PROMPT] != plain[layer, :, :N_PROMPT]).any(-1).all()


@pytest.mark.parametrize("phase", ["all", "prompt", "generated"])
def test_the_changed_state_is_the_formula(phase):
    model, ids = tiny("gpt2"), rows(2, 1, N_PROMPT, STEPS)
    at = {"all": slice(None), "prompt": slice(N_PROMPT), "generated": slice(N_PROMPT, None)}[phase]
    h = read(model, ids, None)[2][:, at].double()
    for kind, dose, wanted in (("scale", 0.5, 1.5 * h), ("scale", -2.0, -h), ("damp", 1.0, 0 * h),
                               ("damp", 0.25, 0.75 * h)):  # fmt: skip
        found = read(model, ids, changes(sample(kind, 2, dose, phase)))[2][:, at]
        assert torch.equal(found, wanted.float())
    found = read(model, ids, changes(sample("noise", 2, 0.3, phase)))[2][:, at].double()
    torch.testing.assert_close((found - h).norm(dim=-1), 0.3 * h.norm(dim=-1), rtol=1e-5, atol=0)
    opposite = read(model, ids, changes(sample("noise", 2, -0.3, phase)))[2][:, at].double()
    assert relative_difference((found + opposite) / 2, h) < 1e-6, "+v and -v cancel to rounding"


def test_noise_is_a_function_of_its_point_alone():
    base = direction("m", "p", sample(), 3, 7, 4096)
    assert np.linalg.norm(base) == pytest.approx(1, abs=1e-12)
    # On the sphere of many dimensions each component is nearly normal.
    assert stats.kstest(base * 64, "norm").pvalue > 1e-3
    again = dataclasses.replace(sample("scale", 1, 9.0, "prompt"), id="other", budget=99)
    assert np.array_equal(base, direction("m", "p", again, 3, 7, 4096))
    others = [
        direction("n", "p", sample(), 3, 7, 4096), direction("m", "q", sample(), 3, 7, 4096),
        direction("m", "p", sample(seed=1), 3, 7, 4096), direction("m", "p", sample(), 2, 7, 4096),
        direction("m", "p", sample(), 3, 8, 4096),
        direction("m", "p", dataclasses.replace(sample(), temperature=1.0), 3, 7, 4096),
    ]  # fmt: skip
    for other in others:
        assert abs(base @ other) < 0.07


@pytest.mark.parametrize("form", FORMS)
def test_a_row_is_changed_as_if_it_were_alone(form):
    """Rows of several prompts and kinds in one batch, and an untouched one among them."""
    model, ids = tiny(form), rows(2, 4, N_PROMPT, STEPS)
    samples = [
        sample("noise", 1, 0.4), sample("scale", 0, 0.3, "generated", 1), sample("damp", 3, 0.5, "prompt", 2),
        dataclasses.replace(sample(seed=3), intervention=None),
    ]  # fmt: skip
    together = read(model, ids, changes(*samples), samples=4)
    for p, prompt in enumerate(("a", "b")):
        for s, one in enumerate(samples):
            i = 4 * p + s
            alone = read(model, ids[i : i + 1], changes(one, prompts=(prompt,)))
            assert relative_difference(together[:, i : i + 1], alone) < 5e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("phase", ["all", "generated"])
def test_writing_under_an_intervention_is_reading_under_it(form, phase):
    model, ids = tiny(form), rows(2, 1, N_PROMPT, 0)
    samples = [sample("noise", 2, 0.3, phase), sample("noise", 2, 0.3, phase, 1)]
    what = changes(*samples, model=model.id)
    with captured(model.blocks) as kept:
        out = generate(model, ["a", "b"], ids, samples, STEPS, changes=what)
    plain = generate(model, ["a", "b"], ids, samples, STEPS)
    assert torch.equal(generate(model, ["a", "b"], ids, samples, STEPS, changes=what), out)
    assert not torch.equal(out, plain)
    ids = out.reshape(4, -1)
    whole = read(model, ids, what, samples=2)
    steps = [k for k in kept if k.shape[1] == 4][-(STEPS - 1) :]
    written = steps[-1] if form == "openai-gpt" else torch.cat(steps, 2)
    start = 0 if form == "openai-gpt" else N_PROMPT
    assert written.shape[2] == whole.shape[2] - start - 1
    # The last token is written and not read while writing; layer 2 was kept before its change.
    others = [i for i in range(len(whole)) if i != 2]
    assert relative_difference(written[others], whole[others, :, start:-1]) < 1e-5
    alone = generate(model, ["b"], ids[2:3, :N_PROMPT], samples[1:], STEPS,
                     changes=changes(samples[1], prompts=("b",), model=model.id))  # fmt: skip
    assert torch.equal(alone[0, 0], out[1, 1])


def test_a_layer_of_another_run_gives_that_run_from_there_on():
    """Patching: with all of layer 2 of run B, run A is run B above it, bit for bit, and itself below."""
    model, a, b = tiny("gpt2"), rows(2, 1, N_PROMPT, STEPS), rows(2, 1, N_PROMPT, STEPS).flip(0, 1)
    of_a, of_b = read(model, a, None), read(model, b, None)

    class Patch(Changes):
        def change(self, state, layer, start):
            assert (layer, start) == (2, 0)
            return of_b[2]

    patched = read(model, a, Patch("m", ("a", "b"), [sample("noise", 2)], [N_PROMPT] * 2))
    assert torch.equal(patched[2:], of_b[2:]) and torch.equal(patched[:2], of_a[:2])


def test_hooks_leave_the_model_as_it_was():
    model, ids = tiny("gpt2"), rows(2, 1, N_PROMPT, STEPS)
    plain = states(model.body, model.blocks, ids)
    with pytest.raises(RuntimeError), intervening(model, changes(sample(), sample(layer=0, seed=1))):
        raise RuntimeError
    assert torch.equal(states(model.body, model.blocks, ids), plain)
    assert not any(b._forward_hooks or b._forward_pre_hooks for b in model.blocks)


@pytest.mark.parametrize(
    "given, found",
    [
        (("tilt", 1, 0.5), "kind 'tilt'"), (("noise", 4, 0.5), "target_layer 4"),
        (("noise", -1, 0.5), "target_layer -1"), (("damp", 1, 1.5), "dose 1.5"),
        (("noise", 1, float("inf")), "dose inf"), (("noise", 1, 0.5, "later"), "phase 'later'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_refused(given, found):
    check_interventions([sample("noise", 3), sample("damp", 0, 1.0)], 3)
    with pytest.raises(DynstatError) as e:
        check_interventions([sample(), sample(*given)], 3, "m")
    assert e.value.code == "X221" and e.value.found == found


PANEL = """samples:
  seeds: [0, 1]
  temperatures: [0.9]
  interventions:
    - {kind: noise, target_layer: 1, dose: 0}
    - {kind: noise, target_layer: 1, dose: 0.5, phase: generated}
    - {kind: damp, target_layer: 3, dose: 0.25}"""


def test_a_panel_of_interventions_becomes_a_dataset(write_panel, tmp_path):
    file = write_panel(("gpt2", "llama"), samples=PANEL, texts=TEXTS[:2])
    ds = dynstat.open(extract_panel(file, tmp_path / "store"))
    assert dynstat.verify(ds) == [] and ds.attrs["dynstat_kind"] == "dose"
    assert ds.sizes["sample"] == 8
    assert ds["kind"].values.tolist() == ["", "", "noise", "noise", "noise", "noise", "damp", "damp"]
    assert ds["target_layer"].values.tolist() == [-1, -1, 1, 1, 1, 1, 3, 3]
    assert ds["dose"].values.tolist() == [0, 0, 0, 0, 0.5, 0.5, 0.25, 0.25]
    assert ds["intervention_phase"].values.tolist() == [
        "",
        "",
        "all",
        "all",
        *["generated"] * 2,
        "all",
        "all",
    ]
    plain, zero, noise = (ds.isel(sample=slice(i, i + 2)) for i in (0, 2, 4))
    np.testing.assert_array_equal(zero["token_id"].values, plain["token_id"].values)
    np.testing.assert_allclose(zero["entropy"].values, plain["entropy"].values, rtol=1e-4, atol=1e-5)
    assert not np.array_equal(noise["token_id"].values, plain["token_id"].values)
    damp = ds.isel(sample=6, layer=3)["state_norm"].values
    np.testing.assert_allclose(
        damp[:, :, 0], 0.75 * plain["state_norm"].values[:, :, 0, :, 3][:, :, 0], rtol=1e-5
    )


def test_a_layer_that_one_model_lacks_is_refused_before_the_run(write_panel):
    panel = load_panel(
        write_panel(("gpt2", "llama"), samples=PANEL.replace("target_layer: 3", "target_layer: 4"))
    )
    with pytest.raises(DynstatError) as e:
        Plan(panel)
    assert e.value.code == "X221" and "gpt2" in e.value.where


def test_forced_texts_are_read_under_interventions_too(write_panel, tmp_path):
    samples = "samples: {interventions: [{kind: scale, target_layer: 0, dose: 1.0}]}"
    for name, more in (("n", ""), ("r", "padding: right")):
        file = write_panel(
            ("gpt2",), samples=samples, mode="forced", budget=0, more=more, folder=tmp_path / name
        )
        ds = dynstat.open(extract_panel(file, tmp_path / f"store-{name}"))
        assert dynstat.verify(ds) == []
        assert ds["sample"].values.tolist() == ["forced", "forced+scale-l0-d1"]
        norm = ds["state_norm"].values[0, :, :, :, 0]
        np.testing.assert_allclose(norm[:, 1], 2 * norm[:, 0], rtol=1e-5)
