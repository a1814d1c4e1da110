"""Import optional libraries at the moment of use."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from xr_spde._core.errors import MissingDependencyError

__all__ = ["has_module", "require"]


def has_module(module: str) -> bool:
    """Say whether a top-level module is installed, without importing it.

    Parameters
    ----------
    module : str
        Name without dots.

    Returns
    -------
    bool
    """
    return importlib.util.find_spec(module) is not None


def require(module: str, extra: str) -> ModuleType:
    """Import a module, or say which extra brings it.

    Parameters
    ----------
    module : str
        Dotted name.
    extra : str
        Extra of xr_spde that installs it.

    Returns
    -------
    module

    Raises
    ------
    MissingDependencyError
        It is not installed, or is installed and does not import.

    Examples
    --------
    >>> from xr_spde._core.lazyimport import require
    >>> require("json", "io").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed and this needs {module}; "
            f"type: pip install 'xr_spde[{extra}]'"
        ) from error
    except ImportError as error:
        raise MissingDependencyError(
            f"{module} is installed but does not import ({error}); "
            f"type: pip install --upgrade --force-reinstall 'xr_spde[{extra}]'"
        ) from error
