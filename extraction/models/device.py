"""Where and how a panel is computed: its device, its threads, and float32 that is float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynstat.errors import DynstatError

from ..panels.panel import Panel


def check_device(panel: Panel) -> None:
    """Refuse a panel whose device this machine lacks.

    Raises
    ------
    DynstatError
        X215.
    """
    if not panel.device.startswith("cuda"):
        return
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(panel.device.partition(":")[2] or 0) >= seen:
        raise DynstatError(
            "X215",
            f"the panel asks for device {panel.device!r} and torch sees "
            + (f"{seen} of CUDA" if seen else "none"),
            where=str(panel.file),
            found=f"torch {torch.__version__}",
            expected="a CUDA device and a build of torch for it",
            mend="run it where the device is, or say `device: cpu`, which is another panel to a lock",
        )


@contextmanager
def arithmetic(panel: Panel) -> Iterator[None]:
    """Compute with the panel's threads and in full float32, and leave torch as it was.

    TF32 on a GPU and its bfloat16 counterpart on a CPU keep the type and drop digits; a session may have
    switched them on. Where memory runs out, the error says what to change.

    Raises
    ------
    DynstatError
        X216 where the memory of the device is full.
    """
    backends = _backends()
    threads, precisions = torch.get_num_threads(), [b.fp32_precision for b in backends]
    try:
        torch.set_num_threads(panel.threads)
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    except torch.OutOfMemoryError as e:
        raise DynstatError(
            "X216",
            "a batch does not fit into the memory of the device",
            where=str(panel.file),
            found=str(e).splitlines()[0],
            expected=f"less than batch_tokens: {panel.batch_tokens} needs",
            mend="lower `batch_tokens`, or free the device",
        ) from e
    finally:
        torch.set_num_threads(threads)
        for backend, precision in zip(backends, precisions, strict=True):
            backend.fp32_precision = precision


def _backends() -> list[Any]:
    # By operator: torch refuses to read its switches where the older, wider ones disagree with these.
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    return [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]  # type: ignore[attr-defined]


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor's values, fetched from its device."""
    return tensor.cpu().numpy()


def name_of(device: torch.device) -> str:
    """Name a device for provenance: "cpu", or the GPU's own name after "cuda"."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
