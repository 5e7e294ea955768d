"""Speed, memory and accuracy of reading a model layer by layer: ``python -m benchmarks.extraction``.

The same job by dynstat, by the two obvious ways, by TransformerLens and by nnsight, on the same weights and
token ids, beside the floor: the forward pass without the head, and the products with the unembedding. Every
form has a process of its own on one thread; the forms take turns in rounds; the least CPU time counts. Models
have the sizes of GPT-2-small, Pythia-70M and Qwen2.5-0.5B with random weights; SmolLM2-135M is real, where
`--smollm2 FILE` or the variable DYNSTAT_SMOLLM2 gives its GGUF file. Memory is the peak beyond what was held
before the job, its least and its most of the rounds. Prints everything, then the targets; exits 1 where one
is missed. `--quick` takes less than two minutes. Peers that are not installed are named and passed over
(``pip install 'dynstat[peers-lens]'``). Where torch sees a GPU, a section on it follows.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from . import extraction_forms as forms
from . import extraction_rounds as rounds
from .extraction_sizes import FULL, QUICK, SMOLLM2, Size, smollm2
from .extraction_targets import Target, floor, judge, judge_growth

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
#: Tokens of each text that are computed in float64 as well.
CHECKED = 48


def lines(table: rounds.Table) -> list[str]:
    """Write one table: a line a form, the floor first."""
    size, ground = table.size, floor(table)
    own = table.rows["dynstat"].least
    head = (
        f"{size.name}, {size.tokens} tokens: kernel chosen {table.kernel}, states {table.hidden_mb:.0f} MB, "
    )
    out = [
        head + f"a buffer of logits {table.buffer_mb:.0f} MB",
        f"  {'':<46}{'s':>8}{'x floor':>9}{'x dynstat':>11}{'extra MB':>10}{'at most':>9}",
        f"  {'floor':<46}{ground:>8.2f}{1:>9.2f}{ground / own:>11.2f}{'':>10}",
    ]
    for name, row in table.rows.items():
        label = forms.FORMS[name][0]
        if row.failure:
            out.append(f"  {label:<46}{row.failure}")
            continue
        out.append(
            f"  {label:<46}{row.least:>8.2f}{row.least / ground:>9.2f}{row.least / own:>11.2f}"
            f"{row.least_mb:>10.0f}{row.most_mb:>9.0f}"
        )
    if table.truth is not None:
        n = table.truth["entropy"].shape[1]
        out.append(f"  largest difference to float64 throughout, first {n} tokens (entropy, KL; nat)")
        for name, row in table.rows.items():
            if row.values is None:
                continue
            off = {k: np.abs(v[:, :n] - table.truth[k]).max() for k, v in row.values.items()}
            kl = f"{off['kl']:.1e}" if "kl" in off else "-"
            out.append(f"    {forms.FORMS[name][0]:<46}{off['entropy']:.1e}  {kl}")
    return out


def verdict(targets: Sequence[Target]) -> int:
    """Print what was met; return 1 where something was missed, else 0."""
    print("\ntargets")
    for t in targets:
        mark = "not judged" if t.met is None else "met" if t.met else "MISSED"
        bound = t.why if t.met is None else t.bound
        print(f"  {mark:<11}{t.what}: {t.value:.3g} ({bound})")
    return int(any(t.met is False for t in targets))


def growth(quick: bool) -> list[Target]:
    """Measure the lens's memory on one model, then with more tokens and layers."""
    # Whole blocks of logits: 146 tokens of this vocabulary fill 28 MB, and what fills less needs less.
    base = Size("4 layers, 438 tokens", "gpt2", 4, 256, 4, 50257, 438)
    others = [
        replace(base, name="4 layers, 876 tokens", tokens=876),
        replace(base, name="12 layers, 438 tokens", layers=12),
        replace(base, name="12 layers, 876 tokens", layers=12, tokens=876),
    ]
    others = others[1:2] if quick else others
    sizes = [base, *others]
    mb = [rounds.apart(rounds.lens_memory, size) for size in sizes]
    print("\nmemory of the lens alone, states there already, MB")
    for size, found in zip(sizes, mb, strict=True):
        print(f"  {size.name:<30}{found:>8.1f}")
    return judge_growth([size.name for size in sizes], mb)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within two minutes")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only models whose name starts so")
    parser.add_argument(
        "--forms", nargs="+", choices=tuple(forms.FORMS), metavar="FORM", help="only these, and the floor"
    )
    parser.add_argument("--rounds", type=int, help="turns of each form (3, quick 1)")
    parser.add_argument("--smollm2", metavar="FILE", help=f"SmolLM2's GGUF file, or by {SMOLLM2}")
    parser.add_argument("--no-gpu", action="store_true", help="leave the section on a GPU out")
    args = parser.parse_args(argv)
    os.environ.update(ONE_THREAD)
    file = smollm2(args.smollm2)
    sizes = [s for s in (QUICK if args.quick else FULL) if _named(s, args.models)]
    targets: list[Target] = []
    absent = sorted({module for name, module in forms.PEERS.items() if not forms.present(name)})
    for module in absent:
        print(f"{module} is not installed: passed over, targets on it are not judged")
    turns = args.rounds or (1 if args.quick else 3)
    for size in sizes:
        if size.kind == "gguf" and file is None:
            print(f"\n{size.name}: no file given (--smollm2, {SMOLLM2}); passed over")
            continue
        names = _forms(size, args)
        there = [name for name in names if forms.present(name)]
        table = rounds.apart(rounds.measure, size, there, turns, file, CHECKED)
        for name in names:
            if name not in there:
                table.rows[name] = rounds.Row(name, failure="not installed")
        print("", *lines(table), sep="\n", flush=True)
        targets += judge(table)
    targets += growth(args.quick)
    if not args.no_gpu:
        from .extraction_gpu import section

        targets += section(args.quick)
    return verdict(targets)


def _named(size: Size, given: Sequence[str] | None) -> bool:
    return given is None or any(size.name.lower().startswith(g.lower()) for g in given)


def _forms(size: Size, args: argparse.Namespace) -> list[str]:
    # A full run has the same model with a long text, where the peers are.
    own = size.name.endswith("short") and not args.quick
    names = forms.FLOOR_AND_OWN if own else tuple(forms.FORMS)
    return [n for n in names if not args.forms or n in args.forms or n in forms.FLOOR_AND_OWN]


if __name__ == "__main__":
    sys.exit(main())
