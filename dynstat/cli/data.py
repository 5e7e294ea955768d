"""`dynstat data`: look at datasets, check them, join them, hand them to other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import DynstatError, ExitCode
from .output import emit, progress_bar

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

app = typer.Typer(help="Describe, verify, combine and export datasets.", no_args_is_help=True)


class Level(StrEnum):
    """What a row of an exported table is."""

    run = "run"
    token = "token"
    layer = "layer"


@app.command()
def describe(path: Path = typer.Argument(..., help="A NetCDF file, or a folder of shards.")) -> None:
    """Print what a dataset holds: sizes, models, variables with units and ranges, and its content hash."""
    import dynstat

    ds = dynstat.open(path)
    facts = _facts(ds)
    emit(facts, _as_text(path, facts))


@app.command()
def verify(path: Path = typer.Argument(..., help="A NetCDF file, or a folder of shards.")) -> None:
    """Check a dataset against the schema and its identities; a store also shard by shard against its plan.

    All problems are listed, and any gives exit code 1.
    """
    from ..dataset.stored import verify_path

    with progress_bar("verify") as progress:
        problems = verify_path(path, progress)
    value = {"path": str(path), "valid": not problems, "problems": [vars(p) for p in problems]}
    text = "\n".join(map(str, problems)) if problems else f"{path}: valid"
    emit(value, text)
    if problems:
        raise typer.Exit(int(ExitCode.CHECKS_FAILED))


@app.command()
def combine(
    paths: list[Path] = typer.Argument(..., help="NetCDF files or folders of shards."),
    out: Path = typer.Option(..., "-o", "--out", help="The file to write."),
) -> None:
    """Join datasets over models, prompts and samples into one file.

    Points that several of them hold must be equal.
    """
    import dynstat

    from ..leftovers import remove_leftovers

    parts = []
    with progress_bar("combine") as progress:
        for i, path in enumerate(paths):
            progress(i, len(paths) + 1, path.name)
            parts.append(dynstat.open(path))
        ds = dynstat.combine(parts)
        progress(len(paths), len(paths) + 1, f"write {out.name}")
        dynstat.save(ds, out)
        remove_leftovers(out.parent, out.name)  # of a combine that was killed while it wrote
        progress(len(paths) + 1, len(paths) + 1, "done")
    value = {"path": str(out), "sizes": _sizes(ds), "content_hash": dynstat.content_hash(ds)}
    emit(value, f"{out}: {_sizes_text(_sizes(ds))}")


@app.command()
def export(
    path: Path = typer.Argument(..., help="A NetCDF file, or a folder of shards."),
    level: Level = typer.Option(..., help="What a row is: a run, a token, or a token in a layer."),
    out: Path = typer.Option(..., "-o", "--out", help="The table to write: FILE.csv or FILE.parquet."),
) -> None:
    """Write a tidy table for R, spreadsheets and other programs.

    Categories are written as words, missing values in CSV as NA. Parquet needs pyarrow.
    """
    import dynstat

    if out.suffix not in (".csv", ".parquet"):
        raise DynstatError(
            "S404",
            f"cannot tell the format of {out.name}",
            where="--out",
            found=out.suffix or "no suffix",
            expected=".csv | .parquet",
        )
    frame = dynstat.to_frame(dynstat.open(path), level=level.value)
    _write(frame, out)
    value = {"path": str(out), "level": level.value, "rows": len(frame), "columns": list(frame.columns)}
    emit(value, f"{out}: {len(frame)} rows, {len(frame.columns)} columns")


def _write(frame: pd.DataFrame, out: Path) -> None:
    from ..files import atomic_path

    if out.suffix == ".csv":
        with atomic_path(out) as temporary:
            frame.to_csv(temporary, index=False, na_rep="NA", lineterminator="\n", encoding="utf-8")
        return
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise DynstatError(
            "D107",
            "writing parquet needs pyarrow",
            where="--out",
            mend="pip install pyarrow, or use FILE.csv",
        ) from None
    with atomic_path(out) as temporary:
        frame.to_parquet(temporary, index=False, engine="pyarrow")


def _sizes(ds: xr.Dataset) -> dict[str, int]:
    from ..dataset.schema import DIMS

    return {d: int(ds.sizes[d]) for d in DIMS if d in ds.sizes}


def _sizes_text(sizes: dict[str, int]) -> str:
    return " × ".join(f"{n} {d}s" if n != 1 else f"1 {d}" for d, n in sizes.items())


def _facts(ds: xr.Dataset) -> dict[str, Any]:
    import numpy as np

    from ..dataset.content import content_hash
    from ..dataset.schema import QUALITY

    keys = ("revision", "family", "architecture", "parameters", "vocabulary", "layers", "dtype")
    columns = {"id": ds["model"].values.tolist()} | {k: ds[k].values.tolist() for k in keys if k in ds.coords}
    models = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    variables = []
    for name, v in ds.data_vars.items():
        row: dict[str, Any] = {"name": str(name), "dims": list(map(str, v.dims)), "dtype": str(v.dtype)}
        row |= {k: str(v.attrs[k]) for k in ("long_name", "units", "definition", "origin") if k in v.attrs}
        if v.dtype.kind in "if" and v.size:
            values = v.values[~np.isnan(v.values)] if v.dtype.kind == "f" else v.values
            row |= {"min": values.min().item(), "max": values.max().item()} if values.size else {}
        variables.append(row)
    codes = ds["quality"].values.ravel() if "quality" in ds else np.zeros(0, int)
    return {
        "kind": ds.attrs.get("dynstat_kind", ""),
        "title": ds.attrs.get("title", ""),
        "created": ds.attrs.get("date_created", ""),
        "version": ds.attrs.get("dynstat_version", ""),
        "sizes": _sizes(ds),
        "models": models,
        "splits": sorted(set(ds["split"].values.tolist())) if "split" in ds.coords else [],
        "categories": sorted(set(ds["category"].values.tolist())) if "category" in ds.coords else [],
        "quality": {word: int((codes == i).sum()) for i, word in enumerate(QUALITY)},
        "variables": variables,
        "content_hash": content_hash(ds),
    }


def _as_text(path: Path, facts: dict[str, Any]) -> str:
    lines = [
        f"{path}: {facts['title']} ({facts['kind']}, dynstat {facts['version']}, {facts['created']})",
        f"  {_sizes_text(facts['sizes'])}",
        "",
        "models",
    ]
    for m in facts["models"]:
        lines.append(
            f"  {m['id']}  {m.get('architecture', '')}, {m.get('parameters', 0):,} parameters, "
            f"{m.get('layers', '?')} layers, vocabulary {m.get('vocabulary', '?')}"
        )
    lines += ["", f"categories: {', '.join(facts['categories'])}", f"splits: {', '.join(facts['splits'])}"]
    points = ", ".join(f"{k} {v:,}" for k, v in facts["quality"].items() if v)
    lines += [f"points: {points}", "", "variables"]
    width = max((len(v["name"]) for v in facts["variables"]), default=0)
    for v in facts["variables"]:
        span = f"{v['min']:.4g} to {v['max']:.4g}" if "min" in v else ""
        lines.append(f"  {v['name']:<{width}}  {v.get('units', ''):<5} {span:<22} {v.get('long_name', '')}")
    return "\n".join([*lines, "", f"content hash {facts['content_hash']}"])
