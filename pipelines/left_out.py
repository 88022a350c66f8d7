"""What other packages would import on the chance that it is there, and deskhouse has no use for."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

LEFT_OUT: Final = frozenset(
    {
        # DuckDB and Arrow look for it each time a value is bound, 860 times a run, and load it where it is installed
        "pandas",
        # httpx's own command line, with all that it draws with
        "httpx._main",
    }
)


class _NotInstalled(MetaPathFinder):
    """Says of these at once that they are not there; None in `sys.modules` would do for Python, and not for Arrow."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - Python's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Look no further.

        Raises:
            ModuleNotFoundError: it is one of them.
        """
        if fullname in LEFT_OUT:
            raise ModuleNotFoundError(f"{fullname} is left out", name=fullname)
        return None


def leave_out() -> None:
    """Have them treated as not installed; for a process of deskhouse's own, before it imports more."""
    sys.meta_path.insert(0, _NotInstalled())
