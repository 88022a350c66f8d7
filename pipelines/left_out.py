"""What other packages would import on the chance that it is there or wanted, and deskhouse has no use for."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

LEFT_OUT: Final = frozenset(
    {
        # DuckDB and Arrow look for it each time a value is bound, 860 times a run, and load it where it is installed
        "pandas",
        # httpx's own command line, with all that it draws with
        "httpx._main",
    }
)

DESTINATIONS: Final = "dlt.destinations"
"""dlt's package of everything it can load into: twenty databases besides DuckDB, 30 ms of each run that loads."""


class _WhenAsked(Loader):
    """Makes dlt's package of destinations without importing each of them; one that is asked for is imported then."""

    def exec_module(self, module: ModuleType) -> None:
        """Nothing but the way to find one."""

        def destination(name: str) -> Any:
            try:
                return getattr(import_module(f"{DESTINATIONS}.impl.{name}.factory"), name)
            except ModuleNotFoundError:
                raise AttributeError(f"module {DESTINATIONS!r} has no attribute {name!r}") from None

        vars(module)["__getattr__"] = destination


class _NotInstalled(MetaPathFinder):
    """Says of these at once that they are not there; None in `sys.modules` would do for Python, and not for Arrow."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Look no further.

        Raises:
            ModuleNotFoundError: it is one of them.
        """
        if fullname in LEFT_OUT:
            raise ModuleNotFoundError(f"{fullname} is left out", name=fullname)
        if fullname != DESTINATIONS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _WhenAsked()
        return spec


def leave_out() -> None:
    """Have them treated as not installed; for a process of deskhouse's own, before it imports more."""
    sys.meta_path.insert(0, _NotInstalled())
