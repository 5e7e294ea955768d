"""Kill a run and its combine at random moments, again and again, and look at what is left each time.

Run by test_kills in a process of its own: children are forked from it, so that a round costs no import.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import dynstat
from dynstat.cli import main as command_line
from dynstat.extraction.panels.panel import load_panel
from dynstat.extraction.stores.plan import Plan
from dynstat.extraction.stores.run import extract_panel
from dynstat.leftovers import leftovers


def work(plan, store, out):
    """Extract what is missing and combine; every line is an acknowledgement."""
    extract_panel(plan.panel, store, plan=plan, progress=lambda done, *_: print(done, flush=True))
    command_line(["data", "combine", str(store), "-o", str(out)])


def start(plan, store, out):
    """Fork a worker; return its process id and the end of the pipe it acknowledges on."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.close(reading)
        os.dup2(writing, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stdout = os.fdopen(1, "w")
        work(plan, store, out)
        sys.stdout.flush()
        os._exit(0)
    except SystemExit as e:
        sys.stdout.flush()
        os._exit(int(e.code or 0))
    except BaseException as e:
        os.write(1, f"failed {e!r}\n".encode())
        os._exit(1)


def end(child, pipe):
    """Wait for a worker; return its exit status and what it acknowledged."""
    with os.fdopen(pipe) as f:
        lines = f.read().split("\n")
    _, status = os.waitpid(child, 0)
    return status, lines[:-1]  # the last line was cut


def acknowledged(plan, missing, lines):
    """Return the shards that the lines say are written: those whose runs have been counted."""
    done = [int(line) for line in lines if line.isdigit()]
    total = sum(b.rows for b in plan.batches)
    count = total - sum(plan.batches[i].rows for i in missing)
    out = []
    for i in missing:
        count += plan.batches[i].rows
        if done and done[-1] >= count:
            out.append(plan.names[i])
    return out


def equal(a, b):
    """Say whether two datasets hold the same bits."""
    return dynstat.content_hash(a) == dynstat.content_hash(b) and all(
        a[n].values.tobytes() == b[n].values.tobytes() if a[n].dtype != object else (a[n] == b[n]).all()
        for n in {*a.variables, *b.variables}
    )


def main(panel, folder, kills, seed):
    """Return the figures; raise AssertionError where anything acknowledged is lost or unreadable."""
    plan, folder = Plan(load_panel(panel)), Path(folder)
    draw = random.Random(seed)
    calm, calm_out = folder / "calm", folder / "calm.nc"
    extract_panel(plan.panel, folder / "first", plan=plan)  # here, so that children find all imported
    started = time.monotonic()
    status, lines = end(*start(plan, calm, calm_out))
    whole = time.monotonic() - started
    assert status == 0, lines
    started = time.monotonic()
    assert end(*start(plan, calm, calm_out))[0] == 0
    combining = time.monotonic() - started
    hashes = {n: dynstat.content_hash(dynstat.open(calm / n)) for n in plan.names}
    combined = dynstat.content_hash(dynstat.open(calm_out))
    kinds = (
        "kills",
        "in_runs",
        "in_combine",
        "half_shards",
        "half_combined",
        "stores",
        "acknowledged",
        "late",
    )
    count = dict.fromkeys(kinds, 0)
    store, out, known, seen = folder / "store", folder / "panel.nc", {}, set()

    def look():
        for name, stamp in known.items():
            assert (store / name).stat().st_mtime_ns == stamp, f"{name} was acknowledged and written anew"
        for file in store.glob("[!.]*.nc"):
            if file.name not in known:  # the others have been opened before
                assert dynstat.content_hash(dynstat.open(file)) == hashes[file.name], file.name
        if out.exists():
            assert dynstat.content_hash(dynstat.open(out)) == combined
        for kind, place in (("half_shards", store), ("half_combined", folder)):
            count[kind] += len(new := set(leftovers(place)) - seen)
            seen.update(new)

    def compare():
        status, lines = end(*start(plan, store, out))
        assert status == 0, lines
        assert sorted(p.name for p in store.iterdir()) == sorted([*plan.names, "panel.json"])
        for name in plan.names:
            assert equal(dynstat.open(store / name), dynstat.open(calm / name)), name
        assert equal(dynstat.open(out), dynstat.open(calm_out))
        assert leftovers(folder) == [] == leftovers(store)
        shutil.rmtree(store)
        out.unlink()
        known.clear()
        count["stores"] += 1

    combines = 0
    while count["kills"] < kills:
        missing = plan.missing(store)
        combines = 0 if missing else combines
        # A complete store has only its combine left: the moment falls into that.
        span = combining + (whole - combining) * len(missing) / len(plan.names)
        child, pipe = start(plan, store, out)
        time.sleep(draw.uniform(0.0, span))
        os.kill(child, signal.SIGKILL)
        status, lines = end(child, pipe)
        assert not any(line.startswith("failed") for line in lines), lines
        if os.WIFSIGNALED(status):
            count["kills"] += 1
            # What is missing no more when it died tells which part of the work it died in.
            whole_now = not plan.missing(store)
            count["in_combine" if whole_now else "in_runs"] += 1
            combines += whole_now
        else:
            count["late"] += 1
        for name in acknowledged(plan, missing, lines):
            assert (store / name).exists(), f"{name} was acknowledged and is lost"
            known[name] = (store / name).stat().st_mtime_ns
            count["acknowledged"] += 1
        look()
        if out.exists() or combines == 5:
            compare()
    if store.exists():
        compare()
    times = {"seconds": round(whole, 2), "seconds_combine": round(combining, 2)}
    return count | times | {"seed": seed, "shards": len(plan.names)}


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
