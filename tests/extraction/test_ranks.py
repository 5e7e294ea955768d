"""Ranks: every item has exactly one, whatever starts the processes, and all of them together are one run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.extraction.panels.panel import load_panel
from dynstat.extraction.stores.plan import Plan
from dynstat.extraction.stores.ranks import ALONE, Rank, rank_of, split
from dynstat.extraction.stores.run import extract_panel

from .stores import assert_same

COSTS = st.lists(st.one_of(st.integers(0, 10**15), st.floats(0, 1e15)), max_size=60)


@given(costs=COSTS, world=st.integers(1, 80))
def test_parts_are_contiguous_and_cover_every_item_once(costs, world):
    parts = split(costs, world)
    assert len(parts) == world
    assert [i for part in parts for i in part] == list(range(len(costs)))
    assert parts == split(list(costs), world)


@given(costs=st.lists(st.integers(1, 10**15), min_size=1, max_size=60), world=st.integers(1, 80))
def test_parts_differ_from_an_equal_share_by_less_than_one_item(costs, world):
    for part in split(costs, world):
        cost = sum(costs[i] for i in part)
        assert abs(world * cost - sum(costs)) <= world * max(costs)


@given(n=st.integers(0, 60), world=st.integers(1, 80), cost=st.integers(0, 5))
def test_equal_items_are_dealt_evenly(n, world, cost):
    sizes = {len(part) for part in split([cost] * n, world)}
    assert max(sizes) - min(sizes) <= 1


def test_a_rank_loads_few_models():
    """Four models of ten items on four ranks: one model each; on three ranks, at most two each."""
    model = [m for m in range(4) for _ in range(10)]
    assert [{model[i] for i in part} for part in split([7] * 40, 4)] == [{0}, {1}, {2}, {3}]
    assert all(len({model[i] for i in part}) <= 2 for part in split([7] * 40, 3))


ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3", "SLURM_LOCALID": "1"}
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environ", "options", "expected"),
    [
        ({}, {}, (0, 1, 0)),
        ({}, {"world": 1}, (0, 1, 0)),
        ({}, {"rank": 2, "world": 3}, (2, 3, 2)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, {}, (5, 8, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, {}, (0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8"} | ARRAY, {"rank": 0, "world": 2}, (0, 2, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8"} | ARRAY, {}, (5, 8, 5)),
        (ARRAY | {"SLURM_ARRAY_TASK_STEP": "2"}, {}, (3, 4, 3)),
        (ARRAY | {"SLURM_ARRAY_TASK_ID": "3"}, {}, (2, 4, 2)),
        (ARRAY | {"SLURM_ARRAY_TASK_ID": "3"} | BATCH_SCRIPT, {}, (2, 4, 2)),
        (ARRAY | {"SLURM_ARRAY_TASK_ID": "3"} | STEP, {}, (8, 12, 1)),
        ({"SLURM_ARRAY_TASK_ID": "3"}, {"world": 9}, (3, 9, 3)),
        ({"JOB_COMPLETION_INDEX": "3", "WORLD_SIZE": "5"}, {}, (3, 5, 3)),
        ({"JOB_COMPLETION_INDEX": "3"}, {"world": 4}, (3, 4, 3)),
        (STEP, {}, (2, 3, 1)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, {}, (1, 2, 1)),
        # A script of eight tasks runs once: as rank 0 of 8 it would leave seven eighths undone.
        (BATCH_SCRIPT, {}, (0, 1, 0)),
    ],
)
def test_launchers(environ, options, expected):
    found = rank_of(environ, **options)
    assert (found.rank, found.world, found.local) == expected
    assert bool(found.origin) == (found.world > 1 or "RANK" in environ)


@pytest.mark.parametrize(
    ("environ", "options", "words"),
    [
        ({}, {"rank": 1}, "--world"),
        ({}, {"world": 4}, "rank"),
        ({}, {"rank": 4, "world": 4}, "rank 4 of 4"),
        ({}, {"rank": -1, "world": 4}, "rank -1 of 4"),
        ({}, {"rank": 0, "world": 0}, "rank 0 of 0"),
        ({"RANK": "1"}, {}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "4"}, {}, "WORLD_SIZE"),
        ({"RANK": "two", "WORLD_SIZE": "4"}, {}, "RANK is no number"),
        ({"RANK": "1", "WORLD_SIZE": ""}, {}, "WORLD_SIZE is no number"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, {}, "rank 4 of 4"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, {}, "rank 0 of 0"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "-1"}, {}, "LOCAL_RANK"),
        (ARRAY, {}, "gaps"),
        (ARRAY | {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_STEP": "2"}, {}, "gaps"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, {}, "--world"),
        ({"JOB_COMPLETION_INDEX": "3"}, {}, "--world"),
        ({"JOB_COMPLETION_INDEX": "3"}, {"world": 3}, "rank 3 of 3"),
    ],
)
def test_bad_numbers_are_one_clear_error(environ, options, words):
    with pytest.raises(DynstatError) as e:
        rank_of(environ, **options)
    assert e.value.code == "Y003" and words in str(e.value)


def test_ranks_of_one_machine_take_its_gpus_in_turn():
    assert [Rank(r, 4, r).device("cuda", 2) for r in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert Rank(9, 16, 1).device("cuda", 4) == "cuda:1"
    assert ALONE.device("cuda", 1) == Rank(3, 4, 3).device("cuda", 1) == "cuda"
    assert Rank(3, 4, 3).device("cpu", 4) == "cpu"


def test_ranks_together_are_the_serial_run_bit_for_bit(write_panel, tmp_path):
    """Three ranks, the last one first and none aware of the others; more ranks than items too."""
    panel = load_panel(write_panel(("llama", "neox"), more="batch_tokens: 40"))
    plan = Plan(panel)
    serial = extract_panel(panel, tmp_path / "serial", plan=plan)
    n = len(plan.batches)
    for world in (3, n + 5):
        store, written = tmp_path / f"store{world}", []
        for rank in reversed(range(world)):
            before = set(plan.missing(store))
            told = []
            extract_panel(
                panel, store, plan=plan, rank=Rank(rank, world), progress=lambda *a, to=told: to.append(a)
            )
            mine = before - set(plan.missing(store))
            assert mine == set(Rank(rank, world).part(plan.costs()))
            runs = sum(plan.batches[i].rows for i in mine)
            assert told[-1] == (runs, runs, "done")
            written += sorted(mine, reverse=True)
        assert written == list(reversed(range(n)))
        assert_same(serial, store)


def test_a_rank_that_comes_again_does_its_own_part_only(write_panel, tmp_path):
    panel = load_panel(write_panel(("llama",), more="batch_tokens: 40"))
    plan, store = Plan(panel), tmp_path / "store"
    extract_panel(panel, store, plan=plan)
    lost = {part[0] for part in split(plan.costs(), 2)}
    for i in lost:
        (store / plan.names[i]).unlink()
    extract_panel(panel, store, plan=plan, rank=Rank(1, 2))
    assert set(plan.missing(store)) == lost - set(Rank(1, 2).part(plan.costs()))
