"""Metrics of the user's own: what a file may register, what is refused, and what lands in the data."""

import hashlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import dynstat  # noqa: E402
from dynstat import DynstatError  # noqa: E402
from dynstat.extraction.panels import user_metrics  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.stores.run import extract_panel  # noqa: E402
from dynstat.registry import METRICS  # noqa: E402

FILE = '''\
"""My metrics."""

import numpy as np

from dynstat.registry import METRICS, Metric, Option

OWN = dict(version=1, origin="user", reference="this test")
METRICS.add(Metric(
    name="state_mean", path="state_mean", summary="Mean entry.", long_name="mean entry of the state",
    inputs=("states",), **OWN,
))
METRICS.add(Metric(
    name="step_squared", path=f"{__name__}:step_squared", summary="Squared step.", units="1", valid_min=0.0,
    long_name="squared length of the step", inputs=("steps",), undefined=("first_tokens:1",), **OWN,
))
METRICS.add(Metric(
    name="margin_of_log", path="margin_of_log", summary="Log of leader over runner-up.", units="nat",
    long_name="log ratio of the leader to the runner-up", inputs=("logits",), valid_min=0.0,
    options={"factor": Option(1.0, None, "multiplies")}, **OWN,
))


def state_mean(states):
    return states.mean(-1)


def step_squared(steps):
    out = np.full((steps.shape[0], steps.shape[1] + 1), np.nan)
    out[:, 1:] = (steps.astype(np.float64) ** 2).sum(-1)
    return out


def margin_of_log(logits, factor=1.0):
    two = np.sort(logits, -1)[:, -2:]
    return factor * (two[:, 1] - two[:, 0])
'''


@pytest.fixture(autouse=True)
def nothing_stays():
    """What a file registers goes with it."""
    before = [m.id for m in METRICS]
    yield
    for file in list(user_metrics._active):
        user_metrics.forget(file)
    assert [m.id for m in METRICS] == before


@pytest.fixture
def own(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path / "mine.py"


def test_a_file_is_known_by_its_hash_and_replaced_when_it_changes(own):
    sha = user_metrics.register(own)
    assert sha == hashlib.sha256(FILE.encode()).hexdigest() == user_metrics.register(own)
    first = METRICS.get("margin_of_log").resolve()
    assert first(np.array([[0.0, 1.0, 3.0]])) == [2.0]
    own.write_text(FILE.replace("return factor *", "return 2 * factor *"))
    assert user_metrics.register(own) != sha
    assert METRICS.get("margin_of_log").resolve()(np.array([[0.0, 1.0, 3.0]])) == [4.0]
    own.write_text(FILE)
    assert user_metrics.register(own) == sha and METRICS.get("margin_of_log").resolve() is first
    copy = own.with_name("copy.py")
    copy.write_text(FILE)
    assert user_metrics.register(copy) == sha, "the same content is the same metrics"
    user_metrics.forget(own)
    assert "state_mean" in METRICS


def test_a_file_that_fails_takes_nothing_with_it(own):
    user_metrics.register(own)
    own.write_text(FILE + "\nraise ValueError('no')\n")
    with pytest.raises(DynstatError) as e:
        user_metrics.register(own)
    assert e.value.code == "X222" and "ValueError: no" in e.value.what
    assert "state_mean" in METRICS, "what was there stays"


ENTRY = (
    'METRICS.add(Metric(name="x", version=1, path="x", summary="x", origin="user", reference="r", '
    'long_name="x", inputs=("states",)))\n'
)
HEAD = "from dynstat.registry import METRICS, Metric\n"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("def f(:", "not Python"),
        ("import nowhere_to_be_found", "imports what its hash does not hold"),
        ("from . import beside", "imports what its hash does not hold"),
        ("import os\nos.nowhere", "cannot be imported"),
        ("raise SystemExit", "cannot be imported"),
        ("x = 1", "registers no metric"),
        (HEAD + ENTRY, "no function 'x'"),
        (HEAD + ENTRY + "def x(states, more): ...", "cannot be called with (states)"),
        (HEAD + ENTRY.replace('path="x"', 'path="os:getcwd"'), "leads out of the file"),
        (HEAD + ENTRY.replace('"user"', '"published"') + "def x(states): ...", "origin"),
        (HEAD + ENTRY.replace('name="x"', 'name="entropy"') + "def x(states): ...", "registered twice"),
        (
            HEAD + ENTRY.replace('name="x", version=1', 'name="entropy", version=2') + "def x(s): ...",
            "uses it",
        ),
        (HEAD + ENTRY.replace('name="x"', 'name="token_id"') + "def x(states): ...", "dynstat uses it"),
        (HEAD + ENTRY.replace('name="x"', 'name="a__b"') + "def x(states): ...", "name"),
        (HEAD + ENTRY.replace('("states",)', '("entropy",)') + "def x(entropy): ...", "inputs"),
        (HEAD + ENTRY.replace('("states",)', '("states", "logits")') + "def x(a, b): ...", "inputs"),
        (HEAD + ENTRY.replace('("states",)', '("steps",)') + "def x(a): ...", "first_tokens:1"),
        (HEAD + ENTRY.replace('("states",)', '("logits", "next_logits")') + "def x(a, b): ...", "last_layer"),
        (HEAD + ENTRY.replace('("states",)', '("states",), level="run"') + "def x(a): ...", "level"),
        (HEAD + ENTRY.replace('("states",)', '("states",), undefined=("never",)') + "def x(a): ...", "never"),
    ],
)
def test_what_a_file_may_not_be(tmp_path, text, word):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(DynstatError) as e:
        user_metrics.register(tmp_path / "mine.py")
    assert e.value.code == "X222" and word in str(e.value) and "mine.py" in str(e.value)
    assert "x" not in METRICS and "x@1" not in METRICS


MORE = """\
register: mine.py
metrics: [state_mean, step_squared, step_length, state_norm, entropy,
  margin_of_log, {metric: margin_of_log, factor: 2.0, as: twice}]
readouts: [logit_lens, no_norm]
"""


def test_they_land_beside_ours(write_panel, own, tmp_path):
    """Held against what stands in the data anyway, and read where the file does not exist."""
    file = write_panel(("llama", "gpt2"), more=MORE, texts=["The king said", "A ship came home"])
    panel = load_panel(file)
    assert panel.inputs()["settings"]["register_sha256"] == hashlib.sha256(FILE.encode()).hexdigest()
    ds = dynstat.open(extract_panel(panel, tmp_path / "store"))
    assert dynstat.verify(ds) == []
    attrs = ds.step_squared.attrs
    assert attrs["definition"] == "step_squared@1" and attrs["origin"] == "user" and attrs["units"] == "1"
    assert attrs["long_name"] == "squared length of the step" and attrs["reference"] == "this test"
    assert attrs["valid_min"] == 0 and attrs["undefined"] == "first_tokens:1"
    assert (
        ds.margin_of_log.attrs["units"] == "nat" and ds.margin_of_log__no_norm.attrs["readout"] == "no_norm"
    )
    assert ds.twice.attrs["definition"] == "margin_of_log@1" and '"factor":2' in ds.twice.attrs["options"]
    np.testing.assert_allclose(ds.twice, 2 * ds.margin_of_log, rtol=1e-6)
    np.testing.assert_allclose(ds.twice__no_norm, 2 * ds.margin_of_log__no_norm, rtol=1e-6)
    # The cosine of consecutive states, from our own norm and step: |a-b|^2 = |a|^2 + |b|^2 - |a||b|(2 - d^2).
    norm = ds.state_norm.transpose(..., "token").values.astype(float)
    length = ds.step_length.transpose(..., "token").values.astype(float)[..., 1:]
    a, b = norm[..., 1:], norm[..., :-1]
    squared = ds.step_squared.transpose(..., "token").values[..., 1:]
    np.testing.assert_allclose(squared, a**2 + b**2 - a * b * (2 - length**2), rtol=1e-3, atol=1e-4)
    there = ds.quality.values == 0
    assert ds.state_mean.notnull().values[there].all() and there.any()
    assert ds.step_squared[..., 1:, :].notnull().values[there[..., 1:, :]].all()
    own.unlink()
    code = (
        "import sys, dynstat; from dynstat.registry import METRICS; ds = dynstat.open(sys.argv[1]);"
        "assert 'step_squared@1' not in METRICS and dynstat.verify(ds) == [];"
        "assert dynstat.to_frame(ds, level='layer')['step_squared'].notna().any();"
        "assert {'torch', 'transformers'} & set(sys.modules) == set()"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "store"], check=True)


def test_the_file_is_part_of_the_panel(write_panel, own):
    file = write_panel(("llama",), more=MORE)
    inputs = load_panel(file).inputs()
    own.write_text(FILE + "# a remark\n")
    assert load_panel(file).inputs() != inputs
    own.write_text(FILE)
    assert load_panel(file).inputs() == inputs


def test_a_panel_stays_bound_to_the_file_it_was_read_with(write_panel, own, tmp_path):
    """Neither an edit in the middle nor a newer panel of the same session changes an older one."""
    file = write_panel(("llama",), more=MORE, texts=["The king said"])
    old = load_panel(file)
    own.write_text(FILE.replace("states.mean(-1)", "1.0 + states.mean(-1)"))
    new = load_panel(file)
    assert new.inputs() != old.inputs()
    a, b = (dynstat.open(extract_panel(p, tmp_path / n)) for p, n in ((old, "old"), (new, "new")))
    np.testing.assert_allclose(b.state_mean, a.state_mean + 1, rtol=1e-5)
    old_in_another_process = pickle.dumps(old)
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read()).settings()"
    done = subprocess.run([sys.executable, "-c", code], input=old_in_another_process, capture_output=True)
    assert b"X222" in done.stderr and b"changed since" in done.stderr


def test_to_pass_a_panel_on_runs_nothing(write_panel, own):
    """The scheduler of workers unpacks what it hands on, and may see no file of the user's."""
    panel = pickle.dumps(load_panel(write_panel(("llama",), more=MORE)))
    own.unlink()
    code = (
        "import pickle, sys; panel = pickle.loads(sys.stdin.buffer.read());"
        "print(panel.id, 'numpy' in sys.modules, any('dynstat_user' in m for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=panel, capture_output=True, check=True)
    assert done.stdout.split() == [b"test", b"False", b"False"]


def test_a_panel_brings_them_to_another_process(write_panel, own, tmp_path):
    panel = load_panel(write_panel(("llama",), more=MORE))
    (tmp_path / "panel.pickle").write_bytes(pickle.dumps(panel))
    code = (
        "import pickle, sys; from dynstat.registry import METRICS;"
        "panel = pickle.load(open(sys.argv[1], 'rb')); settings = panel.settings();"
        "print(METRICS.get(panel.metrics[0]['metric']).resolve().__name__)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "panel.pickle"], check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == "state_mean"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("return states.mean()", "shape"),
        ("return states", "shape"),
        ("return [['a']]", "shape"),
        ("return states.mean(-1) * np.nan", "finite"),
        ("return states.mean(-1) / 0", "finite"),
        ("raise KeyError('lost')", "KeyError"),
        ("return None", "shape"),
        ("states += 1", "read-only"),
        ("return states.mean(-1) - 1e3", "-100 to 100"),
    ],
)
def test_functions_that_fail(write_panel, own, tmp_path, body, word):
    text = FILE.replace("return states.mean(-1)", body)
    own.write_text(
        text.replace('inputs=("states",)', 'inputs=("states",), valid_min=-100.0, valid_max=100.0')
    )
    with pytest.raises(DynstatError) as e:
        extract_panel(write_panel(("llama",), more=MORE, texts=["The king said"]), tmp_path / "store")
    assert e.value.code == "X222" and "state_mean" in e.value.what and word in str(e.value)
    assert not list((tmp_path / "store").glob("*.nc"))


def test_the_file_of_the_documentation(write_panel, own, tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "extraction.md").read_text("utf-8")
    own.write_text(next(b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "METRICS.add" in b))
    asked = re.search(r"`(metrics: \[entropy, spread,.*?\])`", text)[1].replace("entropy", "surprise_gap")
    more = f"register: mine.py\n{asked}"
    ds = dynstat.open(extract_panel(write_panel(("llama",), more=more, texts=["The king"]), tmp_path / "s"))
    assert dynstat.verify(ds) == [] and (ds.rms >= ds.spread).values[ds.quality.values == 0].all()
    assert ds.surprise_gap[..., :-1, :].notnull().all()
    for name in user_metrics.OF_STATES + user_metrics.OF_LOGITS:
        assert f"\n| `{name}` | " in text
