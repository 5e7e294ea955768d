"""Models run over prompt panels: hidden-state geometry and next-token distributions as labelled data."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public names by the module that holds them; resolved on first use, since some of them need torch.
_PUBLIC = {
    "Intervention": "panel",
    "Panel": "panel",
    "extract": "api",
    "extract_panel": "run",
    "load_panel": "panel",
    "offline": "sources",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from .api import extract as extract
    from .panel import Intervention as Intervention
    from .panel import Panel as Panel
    from .panel import load_panel as load_panel
    from .run import extract_panel as extract_panel
    from .sources import offline as offline
