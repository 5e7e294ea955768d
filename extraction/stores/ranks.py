"""Which part of a panel's work is one process's: rank and world, from options or from the launcher."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from dynstat.errors import DynstatError

_ARRAY = "SLURM_ARRAY_TASK"


@dataclass(frozen=True)
class Rank:
    """One of several processes that share a panel's work without speaking to each other.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    world : int
        Processes in all.
    local : int
        Number of this process on its machine; it picks the GPU.
    origin : str
        Where the numbers come from, in words; "" for a process that is alone.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    origin: str = ""

    def __post_init__(self) -> None:
        if self.world < 1 or not 0 <= self.rank < self.world:
            raise DynstatError(
                "Y003",
                "there is no such rank",
                where=self.origin or "rank",
                found=f"rank {self.rank} of {self.world}",
                expected="0 <= rank < world",
                mend="ranks count from 0; world is the number of processes",
            )

    def part(self, costs: Sequence[float]) -> range:
        """Return the items of this process, as :func:`split` gives them."""
        return split(costs, self.world)[self.rank]

    def device(self, kind: str, count: int) -> str:
        """Return the device of this process: ranks of one machine take its GPUs in turn.

        Parameters
        ----------
        kind : {"cpu", "cuda"}
            Device of the panel.
        count : int
            GPUs that this process sees.
        """
        return f"cuda:{self.local % count}" if kind == "cuda" and count > 1 else kind


ALONE = Rank()


def rank_of(environ: Mapping[str, str], rank: int | None = None, world: int | None = None) -> Rank:
    """Find the rank of this process.

    The first of these that is there decides:

    1. `rank` and `world`;
    2. ``RANK`` and ``WORLD_SIZE`` (torchrun, accelerate);
    3. ``SLURM_ARRAY_TASK_ID`` with ``_MIN``, ``_STEP`` and ``_COUNT`` (a Slurm array; several tasks that srun
       starts in each job of the array are counted too);
    4. ``JOB_COMPLETION_INDEX`` (a Kubernetes Indexed Job) with ``WORLD_SIZE``; the index alone does not say
       how many there are;
    5. ``SLURM_PROCID`` and ``SLURM_STEP_NUM_TASKS`` or ``SLURM_NTASKS``, within a step of srun. (In the batch
       script itself one process runs, whatever the number of tasks; it does all the work.)

    `world` alone replaces the number of processes that the launcher names. The number on the machine is
    ``LOCAL_RANK`` or ``SLURM_LOCALID``, else the rank.

    Parameters
    ----------
    environ : mapping of str to str
        ``os.environ``.
    rank, world : int, optional
        Options of the command.

    Returns
    -------
    Rank
        Rank 0 of 1 where nothing says otherwise.

    Raises
    ------
    DynstatError
        Y003 where a number is missing, is none, or lies outside.

    Examples
    --------
    >>> rank_of({"RANK": "1", "WORLD_SIZE": "4"}).rank
    1
    """
    local = _local(environ)
    if rank is not None:
        if world is None:
            raise _bad("--rank needs --world", "--rank", rank, "both", "say how many processes there are")
        return Rank(rank, world, rank if local is None else local, "--rank, --world")
    rank, known, origin = _launched(environ)
    if not origin and world in (None, 1):
        return ALONE
    if not origin:
        raise _bad("--world needs a rank", "--world", world, "--rank, or a launcher that sets one", "")
    if known is None and world is None:
        raise _bad(
            "how many processes there are is not known", origin, "no WORLD_SIZE", "the number of processes",
            "give --world N: the size of the array, the `completions` of the job",
        )  # fmt: skip
    size = known if world is None else world
    return Rank(rank, size or 0, rank if local is None else local, origin + (", --world" if world else ""))


def split(costs: Sequence[float], world: int) -> list[range]:
    """Split items into contiguous parts of about equal cost.

    An item belongs to the part in which the middle of its cost lies, so that the cost of a part differs from
    an equal share by less than that of the dearest item. All items are split, done or not: the parts do
    not depend on what was written before.

    Parameters
    ----------
    costs : sequence of float
        Cost of every item of a plan, in its order; at least 0.
    world : int
        Parts.

    Returns
    -------
    list of range
        Indices of each part; empty ones where there are more parts than items.

    Raises
    ------
    DynstatError
        Y003 for fewer than one part.

    Examples
    --------
    >>> split([1, 1, 1, 1, 4], 2)
    [range(0, 4), range(4, 5)]
    """
    Rank(0, world)
    # Whole numbers, so that every machine finds the same parts; an item without a cost counts as one.
    whole = [max(1, round(c)) for c in costs]
    middles = [2 * before + c for before, c in zip(accumulate(whole, initial=0), whole, strict=False)]
    bounds = [bisect_left(middles, -(-2 * sum(whole) * k // world)) for k in range(world + 1)]
    return [range(a, b) for a, b in pairwise(bounds)]


def gpus(kind: str) -> int:
    """Return how many GPUs this process sees, 0 where the panel does not ask for one."""
    if kind != "cuda":
        return 0
    import torch

    return torch.cuda.device_count()


def _launched(environ: Mapping[str, str]) -> tuple[int, int | None, str]:
    """Return rank, world (None: not said) and origin, as whatever started this process names them."""
    if "RANK" in environ:
        if "WORLD_SIZE" not in environ:
            raise _bad(
                "RANK is set and WORLD_SIZE is not", "RANK", environ["RANK"], "both or none",
                "unset RANK, or give --rank and --world",
            )  # fmt: skip
        return _number(environ, "RANK"), _number(environ, "WORLD_SIZE"), "RANK, WORLD_SIZE"
    if "SLURM_ARRAY_TASK_ID" in environ:
        return _slurm_array(environ)
    if "JOB_COMPLETION_INDEX" in environ:
        known = _number(environ, "WORLD_SIZE") if "WORLD_SIZE" in environ else None
        return _number(environ, "JOB_COMPLETION_INDEX"), known, "JOB_COMPLETION_INDEX"
    if "WORLD_SIZE" in environ and _number(environ, "WORLD_SIZE") > 1:
        raise _bad(
            "WORLD_SIZE is set and no rank is", "WORLD_SIZE", environ["WORLD_SIZE"], "RANK beside it",
            "unset WORLD_SIZE, or give --rank and --world",
        )  # fmt: skip
    rank, world = _slurm_step(environ)
    return rank, world, "SLURM_PROCID" if world > 1 else ""


def _slurm_array(environ: Mapping[str, str]) -> tuple[int, int | None, str]:
    name = "SLURM_ARRAY_TASK_ID"
    task = _number(environ, name)
    if not {f"{_ARRAY}_MIN", f"{_ARRAY}_COUNT"} <= environ.keys():
        return task, None, name
    count = _number(environ, f"{_ARRAY}_COUNT")
    step = _number(environ, f"{_ARRAY}_STEP") if f"{_ARRAY}_STEP" in environ else 1
    place, rest = divmod(task - _number(environ, f"{_ARRAY}_MIN"), max(step, 1))
    if rest or place >= count:
        raise _bad(
            "the array has gaps, so its tasks have no ranks", name, f"task {task} of {count}",
            "an array such as 0-99", 'give --rank "$SLURM_ARRAY_TASK_ID" --world N',
        )  # fmt: skip
    rank, world = _slurm_step(environ)
    return place * world + rank, count * world, name + (", SLURM_PROCID" if world > 1 else "")


def _slurm_step(environ: Mapping[str, str]) -> tuple[int, int]:
    """Return the place among the tasks of a step; a batch script is no step, though it has a SLURM_PROCID."""
    if "SLURM_PROCID" not in environ or "SLURM_STEP_ID" not in environ:
        return 0, 1
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"):
        if name in environ:
            return _number(environ, "SLURM_PROCID"), _number(environ, name)
    return 0, 1


def _local(environ: Mapping[str, str]) -> int | None:
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        if name in environ and (name == "LOCAL_RANK" or "SLURM_STEP_ID" in environ):
            return _number(environ, name)
    return None


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ[name].strip()
    if not (text.isascii() and text.isdigit()):
        raise _bad(f"{name} is no number", name, environ[name] or "nothing", "0, 1, 2, …", f"unset {name}")
    return int(text)


def _bad(what: str, where: str, found: object, expected: str, mend: str) -> DynstatError:
    return DynstatError("Y003", what, where=where, found=found, expected=expected, mend=mend)
