"""Speed of clusters and chains: ``python -m benchmarks.structure``.

Every case prints its times, then the targets; exits 1 where one is missed. R's ``fpc::clusterboot`` runs
where Rscript finds it, in rounds that alternate with dynstat, on the same data, one thread each; times are
CPU time of the call, medians. Without it the case is measured, not judged. `--quick` runs fewer rounds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

SEED = 20261120
ITEMS, FEATURES, CLUSTERS, REPLICATES = 1224, 8, 4, 100
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
#: On data, the faster of fpc's two ways (the other takes distances).
R_SCRIPT = """
suppressMessages(library(fpc))
a <- commandArgs(TRUE); x <- as.matrix(read.csv(a[1]))
f <- function(B) clusterboot(x, B = B, bootmethod = "boot", clustermethod = hclustCBI, scaling = FALSE,
                             method = "ward.D2", k = as.integer(a[2]), count = FALSE, seed = 1)
invisible(f(2))
t <- system.time(r <- f(as.integer(a[3])))
cat(t[["user.self"]] + t[["sys.self"]], mean(r$bootmean), "\\n")
"""


class Target(NamedTuple):
    """One line of the verdict; `met` is None where it was not judged."""

    what: str
    value: float
    bound: str
    met: bool | None


def clusters(quick: bool) -> list[Target]:
    """Time clusterboot with Ward, k = 4, B = 100 on 1,224 x 8 beside fpc."""
    import numpy as np

    from dynstat.cluster import clusterboot, hierarchical

    rng = np.random.default_rng(SEED)
    centres = 6 * np.eye(FEATURES)[np.arange(ITEMS) % CLUSTERS]
    x = rng.normal(size=(ITEMS, FEATURES)) + centres
    partition = hierarchical(x, "ward", k=CLUSTERS)
    clusterboot(x, partition, replicates=10)
    own: list[float] = []
    theirs: list[float] = []
    present = has_fpc()
    with tempfile.TemporaryDirectory() as home:
        data, script = Path(home) / "x.csv", Path(home) / "fpc.R"
        names = ",".join(f"x{j}" for j in range(FEATURES))
        np.savetxt(data, x, delimiter=",", header=names, comments="", fmt="%.17g")
        script.write_text(R_SCRIPT)
        for _ in range(3 if quick else 9):
            began = time.process_time()
            # The first clustering is timed in fpc too.
            found = clusterboot(x, hierarchical(x, "ward", k=CLUSTERS), replicates=REPLICATES)
            own.append(time.process_time() - began)
            if present:
                done = subprocess.run(
                    ["Rscript", str(script), str(data), str(CLUSTERS), str(REPLICATES)],
                    capture_output=True,
                    text=True,
                    check=True,
                    env={**os.environ, **ONE_THREAD},
                )
                seconds, mean = map(float, done.stdout.split())
                theirs.append(seconds)
    what = f"clusterboot, Ward k = {CLUSTERS}, B = {REPLICATES}, {ITEMS:,} x {FEATURES}"
    print(f"{what}\n  dynstat {median(own):.3f} s, mean Jaccard {found.mean.mean():.4f}")
    if not theirs:
        print("  fpc is not installed: not judged")
        return [Target(f"{what}: fpc takes 2 x as long", float("nan"), ">= 2", None)]
    print(f"  fpc     {median(theirs):.3f} s, mean Jaccard {mean:.4f}")
    ratio = median(theirs) / median(own)
    return [Target(f"{what}: fpc takes 2 x as long", ratio, ">= 2", ratio >= 2)]


def chains(quick: bool) -> list[Target]:
    """Time counting sequences and bootstrap replicates of chains."""
    from benchmarks.structure_chains import chain_timings

    out = []
    print("chains")
    for t in chain_timings(quick):
        print(f"  {t.what}: {1e3 * t.median:.1f} ms (least {1e3 * t.least:.1f})")
        out.append(Target(f"{t.what}, s", t.median, f"<= {t.target:g}", t.median <= t.target))
    return out


#: Every half gives its targets.
CASES: list[Callable[[bool], list[Target]]] = [clusters, chains]


def has_fpc() -> bool:
    """Whether R with fpc is at hand."""
    if not shutil.which("Rscript"):
        return False
    return subprocess.run(["Rscript", "-e", "library(fpc)"], capture_output=True).returncode == 0


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structure", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    args = parser.parse_args(argv)
    os.environ.update(ONE_THREAD)
    targets = [t for case in CASES for t in case(args.quick)]
    print("\ntargets")
    for t in targets:
        word = "not judged" if t.met is None else "met   " if t.met else "MISSED"
        print(f"  {word} {t.what}: {t.value:.3g} ({t.bound})")
    return int(any(t.met is False for t in targets))


if __name__ == "__main__":
    sys.exit(main())
