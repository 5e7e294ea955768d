"""What speaks of the next token has no value where none follows."""

import numpy as np

from dynstat.dataset.schema import PADDING
from dynstat.dataset.verify import verify
from dynstat.registry import METRICS


def with_rank(ds):
    """Add the rank of the next token to a panel, defined wherever a token follows."""
    entry = METRICS.get("next_token_rank")
    rank = np.where(np.isnan(ds["entropy"].values), np.nan, 3).astype(np.float32)
    padding = (ds["quality"].values == PADDING)[..., 1:, :]
    rank[..., :-1, :][padding] = np.nan
    rank[..., -1, :] = np.nan
    attrs = {
        "long_name": entry.long_name, "units": entry.units, "valid_min": np.float32(1),
        "valid_max": np.float32(np.inf), "definition": entry.id, "origin": entry.origin,
        "reference": entry.reference, "undefined": "last_token",
    }  # fmt: skip
    return ds.assign(next_token_rank=(ds["entropy"].dims, rank, attrs))


def test_the_last_token_of_a_run_needs_no_value(panel):
    assert verify(with_rank(panel)) == []


def test_a_value_at_the_last_token_of_all_is_found(panel):
    ds = with_rank(panel)
    at = np.argwhere(~np.isnan(ds["entropy"].values[..., -1, :]))[0]
    ds["next_token_rank"].values[..., -1, :][tuple(at)] = 2
    assert [p.code for p in verify(ds)] == ["value"]


def test_a_gap_inside_of_a_run_is_found(panel):
    ds = with_rank(panel)
    ds["next_token_rank"].values[0, 0, 0, 1, 0] = np.nan
    problems = verify(ds)
    assert [p.code for p in problems] == ["nan"] and "next_token_rank" in problems[0].where
