"""The figure of SmolLM2 by layer: its medians against slow ones."""

import numpy as np
import xarray as xr

from benchmarks.smollm2_panel import METRICS, PHASES, by_layer, draw
from dynstat.plotting import save_svg


def panel():
    rng = np.random.default_rng(5)
    dims, shape = ("model", "prompt", "sample", "token", "layer"), (1, 5, 3, 7, 4)
    ds = xr.Dataset({name: (dims, rng.gamma(2.0, size=shape).astype(np.float32)) for name in METRICS})
    phase = np.broadcast_to(np.arange(7) >= 3, shape[:4]).astype(np.int8).copy()
    ds["phase"] = (
        dims[:4],
        phase,
        {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "prompt generated"},
    )
    ds["is_first"] = dims[:4], np.broadcast_to(np.arange(7) == 0, shape[:4]).astype(np.int8).copy()
    ds["is_special"] = dims[:4], (rng.uniform(size=shape[:4]) < 0.1).astype(np.int8)
    ds["entropy"][0, 2, 1, 5, 2] = np.nan  # padding
    return ds


def test_medians_over_runs_then_prompts():
    ds = panel()
    for phase, code in zip(PHASES, (0, 1), strict=True):
        for layer in range(4):
            typical = []
            for prompt in range(5):
                kept = [
                    float(ds.entropy[0, prompt, s, t, layer])
                    for s in range(3)
                    for t in range(7)
                    if ds.phase[0, prompt, s, t] == code
                    and not ds.is_first[0, prompt, s, t]
                    and not ds.is_special[0, prompt, s, t]
                ]
                typical.append(np.median([x for x in kept if x == x]))
            np.testing.assert_allclose(
                by_layer(ds, "entropy", phase)[:, layer], np.percentile(typical, [25, 50, 75]), rtol=1e-6
            )


def test_the_figure_says_what_it_shows(tmp_path):
    fig, alt = draw(panel())
    middle = by_layer(panel(), "kl_to_final", "generated")[1]
    assert f"kl_to_final of generated tokens: median {middle[0]:.2f} at layer 0" in alt
    assert alt in save_svg(fig, tmp_path / "f.svg", alt).read_text(encoding="utf-8").replace("&gt;", ">")
