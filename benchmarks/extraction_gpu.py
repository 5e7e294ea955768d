"""The section of the extraction benchmark on a GPU: batches, float32 and bfloat16, share of the card's rate.

Wall time, least of the rounds, the card idle before and after. Its matmul rate is measured in the same run,
on large square matrices in float32 without TF32: the lens multiplies in float32, whatever the weights are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import extraction_forms as forms
from .extraction_sizes import FULL, Parts, Size, build, loaded
from .extraction_targets import Target, least

SHARE = 0.6
BATCHES = (1, 4, 16)
TOKENS = 512
DEVICE = "cuda"
_SQUARE = 8192


def section(quick: bool) -> list[Target]:
    """Print the tables of a GPU and return their targets; nothing where torch sees none."""
    import torch

    if not torch.cuda.is_available():
        print("\nno GPU here: its section is passed over")
        return []
    # The default, said aloud: TF32 would drop digits and double the rate.
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    with torch.inference_mode():
        rate = square_rate(torch, torch.float32)
        print(f"\n{torch.cuda.get_device_name()}: float32 products at {rate / 1e12:.1f} TFLOP/s without TF32")
        out: list[Target] = []
        sizes = [s for s in FULL if s.kind in ("gpt2", "qwen2") and not s.name.endswith("short")]
        for size in sizes[:1] if quick else sizes:
            for dtype in ("float32", "bfloat16"):
                out += _table(replace(size, tokens=TOKENS), dtype, rate, 2 if quick else 5)
        return out


def _clock(torch: Any, function: Callable[[], Any], rounds: int) -> float:
    function()
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        began = time.perf_counter()
        function()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


def square_rate(torch: Any, dtype: Any) -> float:
    """Return the rate of the card's products of large square matrices, FLOP/s."""
    a = torch.randn(_SQUARE, _SQUARE, device=DEVICE, dtype=dtype)
    return 2 * _SQUARE**3 / _clock(torch, lambda: a @ a, 5)


def _table(size: Size, dtype: str, rate: float, rounds: int) -> list[Target]:
    import torch

    from dynstat.extraction.lens.engine import choose

    parts = build(size)
    parts.lm.to(DEVICE, getattr(torch, dtype))
    engine = choose(1, "cuda")
    print(f"\n{size.name}, {TOKENS} tokens, weights {dtype}, kernel {engine.kernel}")
    print(
        f"  {'texts':>5}{'forward s':>11}{'products s':>12}{'dynstat s':>11}{'x floor':>9}{'lens s':>9}"
        f"{'TFLOP/s':>9}{'share':>7}{'extra MB':>10}"
    )
    return [_row(parts, engine, batch, rate, rounds, f"GPU {size.name}, {dtype}") for batch in BATCHES]


def _row(parts: Parts, engine: Any, batch: int, rate: float, rounds: int, name: str) -> Target:
    import torch

    from dynstat.extraction.lens.measuring import measure
    from dynstat.extraction.runs.reading import read_runs

    model = loaded(parts)
    ids = parts.ids.repeat(batch, 1).to(DEVICE)
    weight = parts.head.weight.float()
    n_states = len(parts.blocks) + 1
    runs = read_runs(model, ids, 1)
    flat = runs.layer(0).reshape(-1, weight.shape[1]).float()
    blocks = flat.split(engine.rows(parts.head.weight.shape[0]))

    def products() -> None:
        for block in blocks * n_states:
            torch.nn.functional.linear(block, weight)

    def lens() -> None:
        measure(model, runs, forms.METRICS, engine=engine)

    def whole() -> None:
        measure(model, read_runs(model, ids, 1), forms.METRICS, engine=engine)

    forward_s = _clock(torch, lambda: parts.body(ids, use_cache=False), rounds)
    products_s, lens_s = _clock(torch, products, rounds), _clock(torch, lens, rounds)
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    whole_s = _clock(torch, whole, rounds)
    mb = (torch.cuda.max_memory_allocated() - held) / 2**20
    reached = 2.0 * weight.numel() * n_states * batch * TOKENS / lens_s
    ratio = whole_s / (forward_s + products_s)
    print(
        f"  {batch:>5}{forward_s:>11.4f}{products_s:>12.4f}{whole_s:>11.4f}{ratio:>9.2f}{lens_s:>9.4f}"
        f"{reached / 1e12:>9.1f}{reached / rate:>7.0%}{mb:>10.0f}"
    )
    what = f"{name}, {batch} x {TOKENS} tokens: lens's share of the card's matmul rate"
    return least(reached / rate, SHARE, what)
