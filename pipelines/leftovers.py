"""What dlt left behind, told without importing dlt: a run that loads nothing does without that third of a second."""

from pipelines.warehouse import Warehouse


class LoadFailed(Exception):
    """A slice could not be loaded; what was committed before stays. The message is safe to print."""


def has_leftovers(warehouse: Warehouse, vendor: str) -> bool:
    """Whether an earlier run of a vendor left a load, or copies of one, in dlt's folder."""
    folder = warehouse.pipelines_dir / vendor
    return any(path.is_file() and path.name != "state.json" for path in folder.rglob("*"))
