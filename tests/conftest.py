"""Settings for all tests: one BLAS thread, no network, Hypothesis without deadlines."""

import os
import sys
from pathlib import Path

# benchmarks/ is not installed; last on the path, so that nothing else of the checkout shadows a package.
sys.path.append(str(Path(__file__).parents[1]))
# Small matrices on several threads are slower by far; set before numpy or torch is imported.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import settings  # noqa: E402

# The machine may be busy: examples are not timed, and a failure in CI can be made again.
settings.register_profile("dynstat", deadline=None, derandomize=True)
settings.load_profile("dynstat")
