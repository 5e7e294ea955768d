"""Versions of the libraries that can move a number, told without importing them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

#: Their major and minor versions go into locks; a patch moves no number that is not a mended error.
NAMES = ("numpy", "scipy", "pandas", "scikit-learn")


def library_versions() -> dict[str, str]:
    """Return major.minor of each that is installed.

    Examples
    --------
    >>> set(library_versions()) <= set(NAMES)
    True
    """
    out = {}
    for name in NAMES:
        try:
            out[name] = ".".join(version(name).split(".")[:2])
        except PackageNotFoundError:  # a machine that locks need not be the one that runs
            continue
    return out
