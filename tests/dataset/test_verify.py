"""Verification: a valid panel has no problem; every single fault is found and named."""

import numpy as np
import pytest

from dynstat.dataset.schema import NO_SUCH_LAYER, NONFINITE, NOT_EXTRACTED, OK, PADDING
from dynstat.dataset.verify import verify
from dynstat.errors import DynstatError


def test_a_valid_panel_has_no_problem(panel):
    assert verify(panel) == []
    assert verify(panel, strict=True) == []


def put(name, value, *at):
    def change(ds):
        ds[name].values[at] = value
        return ds

    return change


def attr(name, key, value=None):
    def change(ds):
        target = ds[name].attrs if name else ds.attrs
        target.pop(key) if value is None else target.update({key: value})
        return ds

    return change


def at_quality(code):
    """Return the first point of the panel with a quality."""
    return lambda ds: tuple(np.argwhere(ds["quality"].values == code)[0])


def put_at(name, value, code):
    def change(ds):
        at = at_quality(code)(ds)
        ds[name].values[at[: ds[name].ndim]] = value
        return ds

    return change


FAULTS = {
    "no title": (attr("", "title"), "attribute", "title"),
    "other schema": (attr("", "dynstat_schema", "dynstat-data-9"), "attribute", "dynstat_schema"),
    "unknown kind": (attr("", "dynstat_kind", "soup"), "attribute", "dynstat_kind"),
    "inputs no json": (attr("", "inputs", "{"), "attribute", "inputs"),
    "conventions": (attr("", "Conventions", "CF-1.11"), "attribute", "Conventions"),
    "no units": (attr("entropy", "units"), "attribute", "entropy"),
    "other units": (attr("entropy", "units", "bit"), "attribute", "entropy"),
    "no definition": (attr("entropy", "definition"), "attribute", "entropy"),
    "no origin": (attr("token_id", "origin"), "attribute", "token_id"),
    "no valid_min": (attr("entropy", "valid_min"), "attribute", "entropy"),
    "no long_name": (attr("category", "long_name"), "attribute", "category"),
    "extra dim": (lambda ds: ds.assign(x=("head", [1])), "dims", "head"),
    "lost dim": (lambda ds: ds.isel(sample=0), "dims", "sample"),
    "no variable": (lambda ds: ds.drop_vars("token_id"), "variable", "token_id"),
    "no quality": (lambda ds: ds.drop_vars("quality"), "variable", "quality"),
    "no coordinate": (lambda ds: ds.drop_vars("revision"), "coordinate", "revision"),
    "float64": (lambda ds: ds.assign(entropy=ds["entropy"].astype("f8")), "type", "entropy"),
    "float ids": (lambda ds: ds.assign(token_id=ds["token_id"].astype("f4")), "type", "token_id"),
    "id twice": (lambda ds: ds.assign_coords(prompt=["p0", "p1", "p0"]), "coordinate", "prompt"),
    "empty id": (lambda ds: ds.assign_coords(model=["", "b"]), "coordinate", "model"),
    "token from 1": (lambda ds: ds.assign_coords(token=ds["token"] + 1), "coordinate", "token"),
    "NaN coordinate": (put("temperature", np.nan, 0), "coordinate", "temperature"),
    "wrong depth": (put("relative_depth", 0.9, 0, 0), "coordinate", "relative_depth"),
    "no weights": (put("weights_sha256", "", 1), "coordinate", "weights_sha256"),
    "negative temperature": (put("temperature", -1.0, 0), "range", "temperature"),
    "below range": (put("entropy", -0.1, 0, 0, 0, 1, 1), "range", "entropy"),
    "above range": (put("step_length", 2.1, 0, 0, 0, 1, 1), "range", "step_length"),
    "infinite": (put("entropy", np.inf, 0, 0, 0, 1, 1), "range", "entropy"),
    "positive log-probability": (put("log_probability", 0.5, 0, 0, 0, 1), "range", "log_probability"),
    "unknown quality": (put("quality", 9, 0, 0, 0, 0, 0), "range", "quality"),
    "layer that is not there": (put("quality", OK, 1, 0, 0, 0, 3), "quality", "quality"),
    "layer lost": (put("quality", NO_SUCH_LAYER, 0, 0, 0, 0, 3), "quality", "quality"),
    "padding in one layer": (put("quality", PADDING, 0, 0, 0, 1, 1), "quality", "quality"),
    "padding in the middle": (put("quality", PADDING, 0, 0, 0, 1), "quality", "token"),
    "NaN at ok": (put("entropy", np.nan, 0, 0, 0, 1, 1), "nan", "entropy"),
    "NaN log-probability": (put("log_probability", np.nan, 0, 0, 0, 2), "nan", "log_probability"),
    "NaN step": (put("step_length", np.nan, 0, 0, 0, 1, 1), "nan", "step_length"),
    "NaN angle, not frozen": (put("turning_angle", np.nan, 0, 0, 0, 3, 1), "nan", "turning_angle"),
    "value at padding": (put_at("entropy", 1.0, PADDING), "value", "entropy"),
    "value beyond the last layer": (put_at("entropy", 1.0, NO_SUCH_LAYER), "value", "entropy"),
    "step at the first token": (put("step_length", 1.0, 0, 0, 0, 0, 1), "value", "step_length"),
    "angle at the second token": (put("turning_angle", 1.0, 0, 0, 0, 1, 1), "value", "turning_angle"),
    "sync at the last layer": (put("synchronisation", 0.5, 1, 0, 0, 0, 2), "value", "synchronisation"),
    "id beyond the vocabulary": (put("token_id", 50, 0, 0, 0, 0), "token", "token_id"),
    "no id at a token": (put("top1_id", -1, 0, 0, 0, 0, 0), "token", "top1_id"),
    "id at padding": (put_at("token_id", 3, PADDING), "token", "token_id"),
    "first in the middle": (put("is_first", 1, 0, 0, 0, 2), "token", "is_first"),
    "count": (put("n_generated", 1, 0, 0, 0), "count", "n_prompt"),
    "phase": (put("phase", 1, 0, 0, 0, 0), "count", "phase"),
    "end of text beyond": (put("first_end_of_text", 99, 0, 0, 0), "count", "first_end_of_text"),
    "stop reason": (put("stop_reason", "bored", 0, 0, 0), "text", "stop_reason"),
    "control character": (put("text", "a\x00", 0, 0, 0), "text", "text"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found(make, fault):
    change, code, where = FAULTS[fault]
    ds = change(make().copy(deep=True))
    problems = verify(ds)
    assert any(p.code == code and where in p.where for p in problems), problems
    # And nothing is reported but the fault and what follows from it.
    assert len(problems) <= 12, problems


@pytest.mark.parametrize("fault", ["below range", "NaN at ok", "count", "no units"])
def test_one_fault_one_problem(make, fault):
    assert len(verify(FAULTS[fault][0](make().copy(deep=True)))) == 1


def test_all_faults_in_one_pass(make):
    ds = make().copy(deep=True)
    for fault in ("no title", "below range", "NaN step", "id beyond the vocabulary", "phase"):
        ds = FAULTS[fault][0](ds)
    assert len(verify(ds)) == 5
    with pytest.raises(DynstatError) as e:
        verify(ds, strict=True)
    assert e.value.code == "D104" and len(e.value.problems) == 5
    ds = make().drop_vars("token_id")
    with pytest.raises(DynstatError) as e:
        verify(ds, strict=True)
    assert e.value.code == "D103"


def test_label_of_the_first_of_many(make):
    ds = make(gaps=False).copy(deep=True)
    ds["entropy"].values[1, 2, 1, 4:6, 2] = np.nan
    (problem,) = verify(ds)
    assert problem.where == "entropy at model model-1, prompt p02, sample s1, token 4, layer 2 and 1 more"
    assert "nan: entropy" in str(problem)


def test_float32_rounding_at_the_bound_is_no_fault(make):
    ds = make().copy(deep=True)
    ds["step_length"].values[0, 0, 0, 1, 1] = np.nextafter(np.float32(2), np.float32(3))
    ds["turning_angle"].values[0, 0, 0, 3, 1] = np.float32(np.pi)
    assert verify(ds) == []


def flag(ds, name, *at):
    ds["quality"].values[at] = NONFINITE
    for n in ("entropy", "step_length", "turning_angle", "synchronisation"):
        ds[n].values[at] = np.nan
    ds["top1_id"].values[at] = -1


def test_points_that_are_not_finite_take_their_dependants_along(make):
    ds = make(gaps=False).copy(deep=True)
    flag(ds, "x", 0, 0, 0, 2, 3)  # token 2 at the last layer of model-0
    assert verify(ds) == []
    # A step or an angle that looks back at it may be missing; so may the synchronisation of the layer below,
    # and the log-probability of the next token.
    for name, at in (
        ("step_length", (3, 3)),
        ("turning_angle", (3, 3)),
        ("turning_angle", (4, 3)),
        ("synchronisation", (2, 2)),
        ("log_probability", (3,)),
    ):
        ds[name].values[(0, 0, 0, *at)] = np.nan
    assert verify(ds) == []
    # One further back may not.
    ds["step_length"].values[0, 0, 0, 4, 3] = np.nan
    assert [p.code for p in verify(ds)] == ["nan"]


def test_frozen_steps_have_no_angle(make):
    ds = make(gaps=False).copy(deep=True)
    ds["turning_angle"].values[0, 0, 0, 3, 1] = np.nan
    assert [p.code for p in verify(ds)] == ["nan"]
    for t in (2, 3):  # either of the two steps of the angle
        frozen = ds.copy(deep=True)
        frozen["step_length"].values[0, 0, 0, t, 1] = 1e-7
        assert verify(frozen) == []
    # The threshold is the one the panel used.
    wide = ds.copy(deep=True)
    wide["step_length"].values[0, 0, 0, 3, 1] = 1e-3
    assert [p.code for p in verify(wide)] == ["nan"]
    wide["turning_angle"].attrs["options"] = '{"eps":0.01}'
    assert verify(wide) == []
    ds["step_length"].values[0, 0, 0, 4, 1] = 1e-7
    assert [p.code for p in verify(ds)] == ["nan"]


def test_runs_that_were_not_extracted(make):
    from dynstat.dataset.combine import combine

    ds = combine([make(models=(0,), prompts=(0,)), make(models=(1,), prompts=(1,))])
    assert (ds["quality"].values == NOT_EXTRACTED).any()
    assert verify(ds) == []
    ds["n_prompt"].values[0, 1, 0] = 2
    assert [p.code for p in verify(ds)] == ["count"]


def test_ranges_come_from_the_file_and_undefined_from_the_registry(make):
    ds = make().copy(deep=True)
    ds["step_length"].attrs.pop("undefined", None)
    assert verify(ds) == []
    # A definition no registry knows is judged by its own attribute.
    ds["step_length"].attrs["definition"] = "user.step_length@1"
    assert {p.code for p in verify(ds)} == {"nan"}
    ds["step_length"].attrs["undefined"] = "first_tokens:1"
    assert verify(ds) == []


def test_a_misspelt_mark_excuses_no_gap(panel):
    ds = panel.copy(deep=True)
    ds["entropy"].attrs |= {"definition": "user.entropy@1", "undefined": "first_token:1"}
    ds["entropy"].values[0, 0, 0, 3, 0] = np.nan
    assert {p.code for p in verify(ds)} == {"attribute", "nan"}


def test_a_readout_variant_says_which(panel):
    ds = panel.assign(entropy__no_norm=panel["entropy"])
    assert [p.where for p in verify(ds)] == ["entropy__no_norm, attribute readout"]
    ds["entropy__no_norm"].attrs["readout"] = "no_norm"
    assert verify(ds) == []
