"""Maintain the prompt files: ``python -m dynstat.extraction.prompts report|cloze|manifest``."""

from __future__ import annotations

import argparse
from pathlib import Path

import dynstat

from .hashes import FILES, read_rows, write_manifest, write_rows
from .matching import largest_gaps, length_table, load_tokenizer, token_lengths


def main(arguments: list[str] | None = None) -> None:
    """Run one of the three verbs.

    Parameters
    ----------
    arguments : list of str, optional
        Command line; that of the process where absent.

    Raises
    ------
    DynstatError
        Where a file is missing or cannot be written.
    """
    parser = argparse.ArgumentParser(prog="python -m dynstat.extraction.prompts", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    report = verbs.add_parser("report", help="token lengths by category of a prompt file")
    report.add_argument("file", type=Path)
    report.add_argument("--tokenizer", type=Path, default=dynstat.data_path("models/tokenizer"))
    cloze = verbs.add_parser("cloze", help="write cloze.csv from the held-out text")
    cloze.add_argument("--corpora", type=Path, required=True)
    manifest = verbs.add_parser("manifest", help="write MANIFEST.json")
    manifest.add_argument("--smollm2", type=Path, required=True, help="GGUF file of SmolLM2-135M-Instruct")
    options = parser.parse_args(arguments)
    if options.verb == "report":
        _report(options.file, options.tokenizer)
    elif options.verb == "cloze":
        _cloze(options.corpora)
    else:
        panel = load_tokenizer(dynstat.data_path("models/tokenizer"))
        print(
            write_manifest(
                dynstat.data_path("prompts"), {"panel": panel, "smollm2": load_tokenizer(options.smollm2)}
            )
        )


def _report(path: Path, tokenizer: Path) -> None:
    rows = read_rows(path)
    columns, group = FILES.get(path.name, (("text",), "category"))
    for column in columns:
        table = length_table(rows, token_lengths(load_tokenizer(tokenizer), [r[column] for r in rows]), group)
        print(f"{path.name}: tokens of {column!r} by {group}")
        for name, entry in table.items():
            lengths = ", ".join(f"{length} x {n}" for length, n in entry["lengths"].items())
            summary = f"n {entry['n']:>3}  mean {entry['mean']:6.2f}  sd {entry['sd']:5.2f}"
            print(f"  {name:<22} {summary}  {lengths}")
        mean_gap, sd_gap = largest_gaps(table)
        print(f"  largest gap of means {mean_gap:.2f}, of standard deviations {sd_gap:.2f}")


def _cloze(corpora: Path) -> None:
    from dynstat.extraction.training.corpora import held_out, train_text

    from .cloze import build_cloze, cloze_rows

    tokenizer = load_tokenizer(dynstat.data_path("models/tokenizer"))
    items = build_cloze(train_text(corpora), held_out(corpora), tokenizer)
    write_rows(dynstat.data_path("prompts") / "cloze.csv", cloze_rows(items))


if __name__ == "__main__":
    main()
