"""Compare stores."""

from pathlib import Path

import dynstat


def assert_same(a: Path, b: Path) -> None:
    """Two stores hold the same shards, and every array of each is the same, bit for bit."""
    names = sorted(p.name for p in a.glob("*.nc"))
    assert names and names == sorted(p.name for p in b.glob("*.nc"))
    assert not [n for n in names if n.startswith(".")]
    for name in names:
        one, two = dynstat.open(a / name), dynstat.open(b / name)
        assert set(one.variables) == set(two.variables)
        for key in one.variables:
            x, y = one[key].values, two[key].values
            assert x.dtype == y.dtype and x.shape == y.shape
            assert x.tolist() == y.tolist() if x.dtype == object else x.tobytes() == y.tobytes(), key
