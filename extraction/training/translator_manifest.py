"""List the translators in a folder: whose they are, their hashes, and what they were measured to do.

Run ``python -m dynstat.extraction.training.translator_manifest data/translators``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dynstat.errors import DynstatError
from dynstat.files import sha256_file, write_json

from ..lens.translators import read_about

LICENCE = "CC0-1.0"
DIGITS = 4


def manifest(folder: Path) -> dict[str, Any]:
    """Describe every file of translators in a folder.

    Parameters
    ----------
    folder : Path
        Its ``*.safetensors`` are read, by name.

    Returns
    -------
    dict
        By file name: bytes, hashes of the file, of the model's weights and of the texts, read-out, width,
        layers, training settings, and KL(final || lens) in nat by layer on the text that was not trained on,
        without and with the translators.

    Raises
    ------
    DynstatError
        F003 where a file holds no translators.
    """
    files = {}
    for path in sorted(folder.glob("*.safetensors")):
        about = read_about(path)
        checked = about["checked"]
        files[path.name] = {
            "bytes": path.stat().st_size,
            "licence": LICENCE,
            "sha256": sha256_file(path),
            **{
                key: about[key]
                for key in ("weights_sha256", "readout", "width", "layers", "text_sha256", "training")
            },
            "checked": {
                "text_sha256": checked["text_sha256"],
                "before": [round(v, DIGITS) for v in checked["before"]],
                "after": [round(v, DIGITS) for v in checked["after"]],
            },
        }
    return {"files": files, "made_by": "python -m dynstat.extraction.training.tuned"}


def main(arguments: list[str] | None = None) -> int:
    """Write MANIFEST.json into the folder; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dynstat.extraction.training.translator_manifest", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="folder of the translators")
    folder = parser.parse_args(arguments).folder
    try:
        write_json(folder / "MANIFEST.json", manifest(folder))
    except DynstatError as error:
        print(error, file=sys.stderr)
        return int(error.exit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
