"""Models run over prompt panels: hidden-state geometry and next-token distributions as labelled data."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public names by the module that holds them; resolved on first use, since some of them need torch.
_PUBLIC = {
    "Intervention": "panels.panel",
    "Panel": "panels.panel",
    "extract": "api",
    "extract_panel": "stores.run",
    "load_panel": "panels.panel",
    "offline": "models.sources",
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
    from .models.sources import offline as offline
    from .panels.panel import Intervention as Intervention
    from .panels.panel import Panel as Panel
    from .panels.panel import load_panel as load_panel
    from .stores.run import extract_panel as extract_panel
