"""Draw what SmolLM2 says at each layer: ``python -m benchmarks.smollm2_panel PANEL.nc -o FIGURE.svg``.

From the panel ``data/panels/smollm2_72.yaml``: entropy, and the divergence from the last layer, by layer,
apart for the tokens of the prompt and those written. A prompt's value is the median over its runs and tokens;
the line is the median over prompts, the band their quartiles. The first token of a text and special tokens
are left out.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

METRICS = {"entropy": "Entropy (nat)", "kl_to_final": "KL(layer || last layer) (nat)"}
PHASES = ("prompt", "generated")


def by_layer(ds: Any, metric: str, phase: str) -> np.ndarray:
    """Return quartiles over prompts by layer, shape (3, layer), of a panel of one model.

    Parameters
    ----------
    ds : Dataset
        With dims model (of size 1), prompt, sample, token, layer.
    metric : str
        Variable.
    phase : {"prompt", "generated"}
        Which tokens.
    """
    one = ds.isel(model=0)
    meanings = one["phase"].attrs["flag_meanings"].split()
    code = int(np.asarray(one["phase"].attrs["flag_values"])[meanings.index(phase)])
    wanted = (one["phase"] == code) & (one["is_first"] == 0) & (one["is_special"] == 0)
    values = one[metric].where(wanted).transpose("prompt", "sample", "token", "layer").values
    typical = np.nanmedian(values.reshape(values.shape[0], -1, values.shape[-1]), axis=1)
    return np.nanpercentile(typical, [25, 50, 75], axis=0)


def draw(ds: Any) -> tuple[Any, str]:
    """Draw the figure; return it with its description in words."""
    from dynstat.plotting.style import OKABE_ITO, figure, style

    looks = {"prompt": (OKABE_ITO["blue"], "-", "o"), "generated": (OKABE_ITO["vermillion"], "--", "s")}
    words = []
    with style():
        fig = figure(2.9)
        axes = fig.subplots(1, 2)
        for ax, (metric, label) in zip(axes, METRICS.items(), strict=True):
            for phase in PHASES:
                low, middle, high = by_layer(ds, metric, phase)
                colour, line, marker = looks[phase]
                layers = np.arange(len(middle))
                ax.fill_between(layers, low, high, color=colour, alpha=0.18, linewidth=0)
                ax.plot(
                    layers,
                    middle,
                    line,
                    color=colour,
                    marker=marker,
                    markersize=2.5,
                    linewidth=1.2,
                    label=phase,
                )
                first, half, last = 0, len(middle) // 2, len(middle) - 1
                points = [f"{middle[i]:.2f} at layer {i}" for i in (first, half, last)]
                words.append(f"{metric} of {phase} tokens: median {', '.join(points)}")
            ax.set_xlabel("Layer (0: input of the first block)")
            ax.set_ylabel(label)
            ax.set_ylim(bottom=0)
        axes[0].legend(title="Tokens", loc="upper left")
    head = "SmolLM2-135M by layer, median and quartiles over prompts. "
    return fig, head + "; ".join(words) + "."


def main(argv: list[str] | None = None) -> int:
    """Draw the figure of a panel file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smollm2_panel", description=__doc__)
    parser.add_argument("panel", help="dataset or store of data/panels/smollm2_72.yaml")
    parser.add_argument("-o", "--output", required=True, help="SVG file")
    args = parser.parse_args(argv)

    import dynstat
    from dynstat.plotting import save_svg

    fig, alt = draw(dynstat.open(args.panel))
    print(save_svg(fig, args.output, alt, title="SmolLM2-135M by layer"))
    print(alt)
    return 0


if __name__ == "__main__":
    sys.exit(main())
