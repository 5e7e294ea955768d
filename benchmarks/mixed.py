"""Time and memory of mixed models beside statsmodels, mixedlm and lme4: ``python -m benchmarks.mixed``.

Every fit runs in a process of its own on one thread; a time is CPU time from the call to the fitted
object, formula included, data in memory, after one fit of something small; medians, in rounds that alternate
between the tools. Memory is the peak during the fits beyond what the process held before. Data are simulated
with a fixed seed. Prints everything, then the targets; exits 1 where one is missed. `--quick` leaves out what
takes more than a few seconds, and judges nothing by what was left out. Peers that are not installed are named
and passed over (`pip install dynstat[peers-stats]`; lme4 where Rscript finds it).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "RAYON_NUM_THREADS",
        "POLARS_MAX_THREADS",
    )
}
SEED = 20261120
# Not A, B, C: patsy would take the last for its own C().
MODEL_A = "y ~ x + category + (1|model) + (1|prompt)"
MODEL_B = MODEL_A + " + (1|model:prompt)"
MODEL_C = MODEL_A.replace("(1|model)", "(1 + x|model)")
LARGE = "y ~ 1 + (1|model) + (1|category) + (1|prompt) + (1|model:category)"


@dataclass(frozen=True)
class Case:
    """One design: its data, formula, and the repeats of every tool (full, quick); 0 leaves a tool out."""

    name: str
    data: str
    formula: str
    repeats: dict[str, tuple[int, int]] = field(default_factory=dict)


def _times(own: int, lme4: tuple[int, int], mixedlm: tuple[int, int], statsmodels: tuple[int, int]) -> Any:
    return {"dynstat": (own, own), "lme4": lme4, "mixedlm": mixedlm, "statsmodels": statsmodels}


CASES = (
    Case("A S1", "S1", MODEL_A, _times(21, (21, 11), (21, 5), (5, 3))),
    Case("A S10", "S10", MODEL_A, _times(11, (7, 3), (7, 3), (3, 1))),
    Case("A S100", "S100", MODEL_A, _times(9, (3, 1), (3, 1), (1, 0))),
    Case("B S10", "S10", MODEL_B, _times(9, (5, 2), (5, 1), (0, 0))),
    Case("B S100", "S100", MODEL_B, _times(5, (1, 0), (3, 1), (0, 0))),
    Case("C S1", "S1", MODEL_C, _times(9, (9, 3), (9, 1), (0, 0))),
    Case("C S10", "S10", MODEL_C, _times(7, (5, 1), (5, 1), (0, 0))),
    Case("C S100", "S100", MODEL_C, _times(5, (1, 1), (3, 1), (0, 0))),
    Case("W", "W", MODEL_A, _times(5, (3, 0), (3, 1), (0, 0))),
    Case("InstEval", "InstEval", "y ~ service + (1|s) + (1|d)", _times(3, (1, 0), (1, 1), (0, 0))),
    Case("1,224,000", "large", LARGE, _times(5, (1, 0), (1, 0), (0, 0))),
)
# tool, least ratio of its time to dynstat's, by case.
RATIOS = (
    ("lme4", "A S1", 2.0),
    ("lme4", "A S100", 25.0),
    ("lme4", "1,224,000", 100.0),
    ("mixedlm", "1,224,000", 10.0),
    ("statsmodels", "A S10", 150.0),
)


def make(name: str) -> Any:
    """Return one simulated data set as a frame."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(SEED)
    if name == "InstEval":
        # The shape of lme4's set: 2,972 students, 1,128 lecturers of very unequal classes, 73,421 rows.
        n, students, lecturers = 73_421, 2_972, 1_128
        popular = rng.dirichlet(np.full(lecturers, 0.9))
        s = np.concatenate([np.arange(students), rng.integers(0, students, n - students)])
        d = np.concatenate([rng.permutation(lecturers), rng.choice(lecturers, n - lecturers, p=popular)])
        y = 3 + rng.normal(0, 0.33, students)[s] + rng.normal(0, 0.52, lecturers)[d] + rng.normal(0, 1.18, n)
        service = np.where(rng.integers(0, 2, n) == 1, "yes", "no")
        return pd.DataFrame({"s": _words("s", s), "d": _words("d", d), "service": service, "y": y})
    sizes = {"S1": (17, 72, 1), "S10": (17, 72, 10), "S100": (17, 72, 100), "W": (60, 2000, 1)}
    models, prompts, runs = sizes.get(name, (17, 720, 100))
    rows = pd.MultiIndex.from_product([range(models), range(prompts), range(runs)])
    m, p = rows.codes[0].astype(np.int64), rows.codes[1].astype(np.int64)
    n = len(rows)
    category = p % 6
    x = rng.normal(size=n)
    y = 2 + np.linspace(0, 0.5, 6)[category] + rng.normal(0, 0.8, models)[m] + rng.normal(0, 0.5, prompts)[p]
    frame = {"model": _words("m", m), "prompt": _words("p", p), "category": _words("c", category)}
    if name == "large":
        y += rng.normal(0, 0.3, (models, 6))[m, category]
        return pd.DataFrame({**frame, "y": y + rng.normal(0, 1, n)})
    if runs > 1:
        y += rng.normal(0, 0.3, models * prompts)[m * prompts + p]
    return pd.DataFrame({**frame, "x": x, "y": y + rng.normal(0, 1, n) + 0.3 * x})


def _words(letter: str, codes: Any) -> Any:
    import numpy as np

    return np.array([f"{letter}{i:04d}" for i in range(int(codes.max()) + 1)], dtype=object)[codes]


# -- in the child processes ---------------------------------------------------------------------------


def child(task: dict[str, Any]) -> dict[str, Any]:
    """Do one task in this process and return its times (CPU seconds) and what it found."""
    import warnings

    warnings.simplefilter("ignore")
    return {"fit": _fit, "more": _more, "file": _file}[task["task"]](task)


def _forget_peak() -> float:
    """Start a new peak of this process's memory where Linux lets us; return the memory held, MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    """Return the highest memory of this process, MB."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return float(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def _fit(task: dict[str, Any]) -> dict[str, Any]:
    import pandas as pd

    frame = pd.read_csv(task["path"])
    tool, formula = task["tool"], task["formula"]
    small = pd.DataFrame({"x": [0.0, 1, 0, 3, 2, 5, 1, 1] * 4, "category": list("uv") * 16})
    small = small.assign(model=list("aabbccdd") * 4, prompt=list("efghefgh") * 4, y=small["x"] ** 1.5)
    small["y"] += [(7 * i % 11) / 5 for i in range(32)]
    if tool == "dynstat":
        from dynstat.mixed.fit import lmer

        def fit(frame: Any, formula: str) -> float:
            return float(lmer(formula, frame).criterion)

    elif tool == "mixedlm":
        import mixedlm

        def fit(frame: Any, formula: str) -> float:
            return float(-2 * mixedlm.lmer(formula, frame).logLik().value)

    else:
        import statsmodels.formula.api as smf

        # statsmodels knows (1|model) + (1|prompt) as two variance components of one group.
        def fit(frame: Any, formula: str) -> float:
            parts = {"model": "0+C(model)", "prompt": "0+C(prompt)"}
            data = frame.assign(one=1)
            fitted = smf.mixedlm("y ~ x + category", data, groups="one", vc_formula=parts).fit(reml=True)
            return float(-2 * fitted.llf)

    fit(small, MODEL_A)
    before = _forget_peak()
    times, value = [], float("nan")
    for _ in range(task["repeats"]):
        start = time.process_time()
        value = fit(frame, formula)
        times.append(time.process_time() - start)
    return {"times": times, "criterion": value, "mb": _peak() - before}


def _more(task: dict[str, Any]) -> dict[str, Any]:
    """Time Kenward-Roger, the bootstrap and many outcomes on model A."""
    import numpy as np
    import pandas as pd
    import xarray as xr

    import dynstat
    from dynstat.mixed.contrasts import coefficients

    out: dict[str, Any] = {}
    for name, path in task["paths"].items():
        frame = pd.read_csv(path)
        m = dynstat.lmer(MODEL_A, frame)
        times = []
        for _ in range(9):
            start = time.process_time()
            coefficients(m, ddf="Kenward-Roger")
            times.append(time.process_time() - start)
        out[f"KR {name}"] = median(times)
        if name != "S1":
            continue
        times = []
        for i in range(5):
            start = time.process_time()
            dynstat.bootstrap(m, nsim=1000, rng=i)
            times.append(time.process_time() - start)
        out["bootstrap"] = median(times)
        rng = np.random.default_rng(SEED)
        sds = rng.uniform(0, 1, (2, 1000)) * (rng.uniform(size=(2, 1000)) > 0.2)
        model, prompt = (pd.factorize(frame[c], sort=True)[0] for c in ("model", "prompt"))
        y = rng.normal(size=(17, 1000))[model] * sds[0] + rng.normal(size=(72, 1000))[prompt] * sds[1]
        y += rng.normal(size=y.shape)
        outcomes = xr.DataArray(y.T.reshape(20, 50, -1), dims=("metric", "layer", "row"))
        times = []
        for _ in range(5):
            start = time.process_time()
            many = dynstat.lmer_many(MODEL_A, frame, outcomes)
            times.append(time.process_time() - start)
        out["many"] = median(times) / 1000
        out["many converged"] = float(many["converged"].mean())
        out["many singular"] = float(many["singular"].mean())
        out["many worst"] = max(
            abs(
                many["criterion"].values.ravel()[b] - dynstat.lmer(MODEL_A, frame.assign(y=y[:, b])).criterion
            )
            for b in range(0, 1000, 50)
        )
    return out


def _file(task: dict[str, Any]) -> dict[str, Any]:
    """Fit token x layer rows of a file in chunks."""
    import pandas as pd
    import xarray as xr

    from dynstat.mixed.fit import lmer

    lmer("y ~ 1 + (1|g)", [pd.DataFrame({"g": [1, 1, 2, 2, 3, 3], "y": [1.0, 2, 4, 3, 0, 9]})])
    with xr.open_dataset(task["path"]) as ds:
        ds["model"].load()
        before = _forget_peak()
        start = time.process_time()
        m = lmer(task["formula"], ds)
        return {"times": [time.process_time() - start], "mb": _peak() - before, "nobs": m.nobs}


R_SCRIPT = """
suppressMessages(library(lme4))
invisible(lmer(Reaction ~ Days + (Days | Subject), sleepstudy))
a <- commandArgs(TRUE)
d <- read.csv(a[1], stringsAsFactors = TRUE)
t <- numeric(0)
before <- sum(gc(reset = TRUE)[, 2])
for (i in seq_len(as.integer(a[3]))) {
  s <- system.time(m <- suppressMessages(suppressWarnings(lmer(as.formula(a[2]), d, REML = TRUE))))
  t <- c(t, s[["user.self"]] + s[["sys.self"]])
}
cat(sprintf("%.6f", t), "\\n")
cat(sprintf("%.17g %.1f\\n", REMLcrit(m), sum(gc()[, 6]) - before))
"""


# -- in the parent ------------------------------------------------------------------------------------


def _python(task: dict[str, Any]) -> dict[str, Any] | None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mixed", "--child", json.dumps(task)],
        capture_output=True,
        text=True,
        env={**os.environ, **ONE_THREAD},
    )
    if done.returncode:
        print(f"  {task.get('tool', task['task'])} failed: {done.stderr.strip().splitlines()[-1]}")
        return None
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _r(script: Path, path: str, formula: str, repeats: int) -> dict[str, Any] | None:
    done = subprocess.run(
        ["Rscript", str(script), path, formula, str(repeats)],
        capture_output=True,
        text=True,
        env={**os.environ, **ONE_THREAD},
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or len(lines) < 2:
        print(f"  lme4 failed: {done.stderr.strip()[-200:]}")
        return None
    criterion, mb = map(float, lines[-1].split())
    return {"times": [float(t) for t in lines[-2].split()], "criterion": criterion, "mb": mb}


def tools() -> list[str]:
    """Return the tools at hand, dynstat first."""
    import importlib.util

    found = ["dynstat"]
    if shutil.which("Rscript"):
        has = subprocess.run(["Rscript", "-e", "library(lme4)"], capture_output=True)
        found += ["lme4"] if has.returncode == 0 else []
    found += [name for name in ("mixedlm", "statsmodels") if importlib.util.find_spec(name)]
    for name in {"lme4", "mixedlm", "statsmodels"} - set(found):
        print(f"{name} is not installed: passed over, targets against it are not judged")
    return found


def measure(
    case: Case, path: str, script: Path, present: list[str], quick: bool
) -> dict[str, dict[str, Any]]:
    """Time all tools on one design, in rounds."""
    got: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = defaultdict(list)
    counts = {t: case.repeats[t][1 if quick else 0] for t in present}
    rounds = 1 if quick or counts["dynstat"] < 5 else 3
    for i in range(rounds):
        for tool, count in counts.items():
            share = count // rounds + (i < count % rounds)
            if not share:
                continue
            if tool == "lme4":
                one = _r(script, path, case.formula, share)
            else:
                task = {"task": "fit", "tool": tool, "formula": case.formula, "path": path, "repeats": share}
                one = _python(task)
            if one is not None:
                times[tool] += one["times"]
                kept = got.setdefault(tool, one)
                kept["mb"] = max(kept["mb"], one["mb"])
    return {tool: {**one, "seconds": median(times[tool])} for tool, one in got.items()}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within two minutes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        print(json.dumps(child(json.loads(args.child))))
        return 0
    present = tools()
    targets: list[tuple[str, float, float, bool]] = []
    with tempfile.TemporaryDirectory() as home:
        script = Path(home) / "lme4.R"
        script.write_text(R_SCRIPT)
        paths: dict[str, str] = {}
        for case in CASES:
            if case.data not in paths:
                paths[case.data] = str(Path(home) / f"{case.data}.csv")
                make(case.data).to_csv(paths[case.data], index=False)
        print(f"\n{'design':<12}{'tool':<13}{'ms':>11}{'x dynstat':>11}{'MB':>9}{'criterion off':>21}")
        results = {}
        for case in CASES:
            results[case.name] = got = measure(case, paths[case.data], script, present, args.quick)
            own = got["dynstat"]
            for tool, one in got.items():
                ratio = one["seconds"] / own["seconds"]
                off = one["criterion"] - own["criterion"]
                print(
                    f"{case.name:<12}{tool:<13}{1e3 * one['seconds']:>11.1f}{ratio:>11.1f}{one['mb']:>9.0f}"
                    f"{off:>21.1e}",
                    flush=True,
                )
            if "lme4" in got:
                slower = own["seconds"] / got["lme4"]["seconds"]
                targets.append((f"{case.name}: at most 1.5 x lme4's time", slower, 1.5, slower <= 1.5))
                above = own["criterion"] - got["lme4"]["criterion"]
                targets.append((f"{case.name}: criterion above lme4's", above, 1e-6, above <= 1e-6))
        for tool, name, least in RATIOS:
            if tool in results[name]:
                ratio = results[name][tool]["seconds"] / results[name]["dynstat"]["seconds"]
                targets.append((f"{name}: {tool} takes {least:g} x as long", ratio, least, ratio >= least))
        mb = results["A S100"]["dynstat"]["mb"]
        targets.append(("A S100: MB over the frame", mb, 300.0, mb <= 300))
        targets += _others(paths, Path(home), args.quick)
    print("\ntargets")
    for what, value, bound, met in targets:
        print(f"  {'met   ' if met else 'MISSED'} {what}: {value:.3g} (bound {bound:g})")
    left = [f"{t} on {n}" for t, n, _ in RATIOS if t not in results[n]]
    if left:
        print("  not judged: " + ", ".join(left))
    return int(any(not met for *_, met in targets))


def _others(paths: dict[str, str], home: Path, quick: bool) -> list[tuple[str, float, float, bool]]:
    """Measure Kenward-Roger, bootstrap, many outcomes and a file; return their targets."""
    sizes = ("S1", "S10", "S100")
    more = _python({"task": "more", "paths": {s: paths[s] for s in sizes}})
    out: list[tuple[str, float, float, bool]] = []
    if more is None:
        return [("Kenward-Roger, bootstrap, many outcomes: run", 0.0, 1.0, False)]
    print(f"\nmodel A, 1,000 outcomes: {1e3 * more['many']:.3f} ms each, labelled result included;", end=" ")
    print(f"{more['many converged']:.1%} converged, {more['many singular']:.1%} singular;", end=" ")
    print(f"criterion of 20 of them off lmer's by at most {more['many worst']:.1e}")
    print(f"model A, 1,000 bootstrap replicates at 1,224 rows: {more['bootstrap']:.3f} s")
    for size in sizes:
        print(f"model A {size}, Kenward-Roger of all coefficients: {1e3 * more['KR ' + size]:.2f} ms")
        ms = 1e3 * more["KR " + size]
        out.append((f"Kenward-Roger on model A {size}, ms", ms, 5.0, ms <= 5))
    out.append(("one of 1,000 outcomes, ms", 1e3 * more["many"], 0.3, more["many"] <= 0.3e-3))
    out.append(("1,000 outcomes: criterion off lmer's", more["many worst"], 1e-8, more["many worst"] <= 1e-8))
    out.append(("1,000 bootstrap replicates, s", more["bootstrap"], 0.5, more["bootstrap"] <= 0.5))
    tokens = 125 if quick else 1250
    path = home / "tokens.nc"
    write_tokens(path, tokens)
    formula = "entropy ~ 1 + (1|model) + (1|category/prompt) + (1|model:prompt) + (1|layer)"
    task = {"task": "file", "path": str(path), "formula": formula}
    if (one := _python(task)) is None:
        return [*out, ("a file of token x layer rows: run", 0.0, 1.0, False)]
    print(f"file of {one['nobs']:,} token x layer rows: {one['times'][0]:.2f} s, {one['mb']:.0f} MB more")
    out.append((f"{one['nobs']:,} rows of a file, MB", one["mb"], 500.0, one["mb"] <= 500))
    return out


def write_tokens(path: Path, tokens: int) -> None:
    """Write 4 models x 40 prompts x 2 samples x `tokens` x 25 layers of an entropy, model by model."""
    import netCDF4
    import numpy as np

    rng = np.random.default_rng(SEED)
    shape = {"model": 4, "prompt": 40, "sample": 2, "token": tokens, "layer": 25}
    with netCDF4.Dataset(path, "w") as file:
        for name, size in shape.items():
            file.createDimension(name, size)
        words = {"model": list("abcd"), "prompt": [f"p{i:02d}" for i in range(40)]}
        for name, on, values in (
            *((k, k, v) for k, v in words.items()),
            ("category", "prompt", [f"c{i % 4}" for i in range(40)]),
        ):
            variable = file.createVariable(name, str, (on,))
            for i, value in enumerate(values):
                variable[i] = value
        y = file.createVariable("entropy", "f4", tuple(shape), chunksizes=(1, 1, 1, tokens, 25))
        prompt, layer = rng.normal(size=40), rng.normal(size=25)
        for m in range(4):
            noise = rng.standard_normal((40, 2, tokens, 25), dtype=np.float32)
            both = rng.normal(size=40) / 2
            y[m] = noise + (3 + m / 3 + prompt + both)[:, None, None, None] + layer


if __name__ == "__main__":
    sys.exit(main())
