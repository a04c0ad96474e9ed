"""lingula: visual representations from medical images and their reports, measured honestly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lingula.api import load as load

__version__ = "0.2.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # torch comes with it, so only when asked for
        from lingula.api import load

        return load
    raise AttributeError(f"module 'lingula' has no attribute '{name}'")
