"""The matmul of the unembedding: the kernels that torch offers, and which of them this machine can use."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

KERNELS = ("linear", "onednn")
# Two float32 matmuls sum in different orders; no more than that may lie between them.
_ROUNDING = 1e-5


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply as ``torch.nn.functional.linear`` does: MKL on most CPUs, cuBLAS on a GPU.

    Parameters
    ----------
    x : Tensor, shape (n, width)
    weight : Tensor, shape (V, width)
    bias : Tensor, shape (V,), or None

    Returns
    -------
    Tensor, shape (n, V)
    """
    return functional.linear(x, weight, bias)


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply with the kernel of oneDNN, which is faster on some CPUs; shapes as :func:`linear`."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def multiplier(kernel: str) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Return the function of a kernel's name."""
    return {"linear": linear, "onednn": onednn}[kernel]


def usable(kernel: str, device: str = "cpu") -> bool:
    """Say whether a kernel exists here and gives what the plain one gives, up to rounding.

    Parameters
    ----------
    kernel : str
        One of ``KERNELS``, or any name.
    device : {"cpu", "cuda"}, optional
        Where the product is made; oneDNN's is for CPUs.
    """
    if kernel == "linear":
        return True
    if kernel not in KERNELS or device != "cpu":
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 96, generator=generator)
    weight = torch.randn(130, 96, generator=generator)
    bias = torch.randn(130, generator=generator)
    try:
        with torch.inference_mode():
            for b in (None, bias):
                truth = linear(x, weight, b)
                found = multiplier(kernel)(x, weight, b)
                if found.shape != truth.shape or not torch.allclose(found, truth, 0, _ROUNDING * 96**0.5):
                    return False
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        # The operator is private to torch: another build may lack it or call it otherwise.
        return False
    return True
