"""Run the forms of one model in rounds, each form in a process of its own, and take times and memory.

The model is made once; every form's process is a fork of the one that made it, so that all read the very same
weights. Forms take turns; the least time of all rounds counts, since what else a machine does can only add.
Times are CPU seconds of one thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import extraction_forms as forms
from .extraction_sizes import Parts, Size, build, loaded

Values = dict[str, np.ndarray]


@dataclass
class Row:
    """What one form took.

    Attributes
    ----------
    form : str
        Key of :data:`~benchmarks.extraction_forms.FORMS`.
    seconds : list of float
        CPU time of each round.
    mb : list of float
        Most memory beyond what was held before the job, in each round; NaN where it cannot be read.
    values : mapping or None
        What the job gave.
    failure : str
        Why there is nothing, "" otherwise.
    """

    form: str
    seconds: list[float] = field(default_factory=list)
    mb: list[float] = field(default_factory=list)
    values: Values | None = None
    failure: str = ""

    @property
    def least(self) -> float:
        """Least time of all rounds, seconds."""
        return min(self.seconds, default=float("nan"))

    @property
    def least_mb(self) -> float:
        """Least memory of all rounds: how the allocator's heap happens to be split only adds, 100s of MB."""
        return min(self.mb, default=float("nan"))

    @property
    def most_mb(self) -> float:
        """Most memory of all rounds."""
        return max(self.mb, default=float("nan"))


def memory(key: str) -> float:
    """Return a line of this process's status, MB: VmRSS is held now, VmHWM was the most."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return float(next(line for line in status.splitlines() if line.startswith(key)).split()[1]) / 1024


def forget_peak() -> float:
    """Give back freed memory, start a new high-water mark, and return the memory held, MB."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        # Else a job could use what an earlier one freed without the mark rising.
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return memory("VmRSS")


def no_heap() -> None:
    """Let every block above 1 MB be a mapping of its own, which is given back when it is freed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD


def timed(job: Callable[[], Any]) -> tuple[float, float, Any]:
    """Run a job once; return CPU seconds, memory beyond what was held (MB), and what it gave."""
    before = forget_peak()
    began = time.process_time()
    values = job()
    return time.process_time() - began, memory("VmHWM") - before, values


def _serve(form: str, parts: Parts, pipe: Any) -> None:
    """Prepare a form, then run it whenever asked."""
    import torch

    torch.set_num_threads(1)
    try:
        with torch.inference_mode(form not in forms.PEERS):
            job = forms.FORMS[form][1](parts)
            job(parts.ids[:, :16])
            pipe.send("")
            while pipe.recv() != "end":
                pipe.send(timed(lambda: job(parts.ids)))
    except Exception as e:  # a peer can fail in any way; its row says how
        pipe.send(f"{type(e).__name__}: {e}".splitlines()[0][:200])


class Worker:
    """A process that holds one form of one model."""

    def __init__(self, form: str, parts: Parts) -> None:
        # By fork: the same weights, held once. One thread, so no lock can be held by another.
        context: Any = multiprocessing.get_context("fork")
        self.row = Row(form)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(form, parts, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.row.failure = self._receive()

    def _receive(self) -> Any:
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join()
            return f"process ended with {self.process.exitcode}"

    def turn(self) -> None:
        """Run the form once more."""
        if self.row.failure:
            return
        self.pipe.send("turn")
        answer = self._receive()
        if isinstance(answer, str):
            self.row.failure = answer
            return
        seconds, mb, self.row.values = answer
        self.row.seconds.append(seconds)
        self.row.mb.append(mb)

    def end(self) -> None:
        """Let the process go."""
        with contextlib.suppress(OSError):
            self.pipe.send("end")
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()


@dataclass
class Table:
    """The forms of one model, with the truth beside.

    Attributes
    ----------
    size : Size
        The model.
    rows : mapping of str to Row
        By form.
    truth : mapping or None
        The job in float64 on the first tokens.
    hidden_mb, buffer_mb : float
        Size of all states, and of one buffer of logits, MB.
    kernel : str
        What dynstat chose.
    """

    size: Size
    rows: dict[str, Row]
    truth: Values | None
    hidden_mb: float
    buffer_mb: float
    kernel: str


def measure(size: Size, names: Sequence[str], rounds: int, file: Path | None, checked: int) -> Table:
    """Run all forms of a model in rounds; to be called in a process of its own.

    Parameters
    ----------
    size : Size
        The model.
    names : sequence of str
        Forms.
    rounds : int
        Turns of every form.
    file : Path or None
        GGUF file, where the model is one.
    checked : int
        Tokens that are computed in float64 as well; 0 for none.
    """
    import torch

    torch.set_num_threads(1)
    parts = build(size, file)
    # Before the processes part: all of them have the same.
    engine, _ = forms.engine(), loaded(parts)
    workers = [Worker(name, parts) for name in names]
    for _ in range(rounds):
        for worker in workers:
            worker.turn()
    for worker in workers:
        worker.end()
    vocabulary, width = parts.head.weight.shape
    rows = engine.rows(vocabulary)
    hidden = 4 * (len(parts.blocks) + 1) * parts.ids.shape[1] * width
    truth = None
    if checked:
        with torch.inference_mode():
            truth = forms.reference(parts, checked)
    found = {worker.row.form: worker.row for worker in workers}
    return Table(size, found, truth, hidden / 2**20, 4 * rows * vocabulary / 2**20, engine.kernel)


def lens_memory(size: Size) -> float:
    """Return the memory that the lens takes beyond states that are there, the median of three turns, MB.

    Freed blocks are given back at once: how the heap happens to split is not what is asked.
    """
    import torch

    from dynstat.extraction.lens.measuring import measure
    from dynstat.extraction.runs.reading import read_runs

    torch.set_num_threads(1)
    parts = build(size)
    model, engine = forms.loaded(parts), forms.engine()
    runs = read_runs(model, parts.ids, 1)
    no_heap()
    return statistics.median(
        timed(lambda: bool(measure(model, runs, forms.METRICS, engine=engine)))[1] for _ in range(3)
    )


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of this module in a fresh process and return what it gives.

    Raises
    ------
    RuntimeError
        Where the process ended without giving anything.
    """
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process: Any = context.Process(target=_send, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        return pipe.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{function.__name__} ended with {process.exitcode}") from None
    finally:
        process.join()


def _send(pipe: Any, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    pipe.send(function(*arguments))
