"""Who may read a warehouse, and links in it that lead elsewhere: nobody, and nowhere, unless the settings say so."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from pipelines.lock import lock_holder
from pipelines.permissions import Access
from sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Desk

    from sandbox.server import SandboxServer

MODE = "DESKHOUSE__FILE_MODE"
PUBLISHED = {"owner": (0o700, 0o400), "group": (0o750, 0o440), "everyone": (0o755, 0o444)}


@pytest.fixture(autouse=True)
def careless() -> Iterator[None]:
    """A user whose umask hides nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def modes_below(folder: Path) -> dict[str, set[int]]:
    """Modes of folders and of files below a folder, itself included."""
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return {
        "folders": {mode_of(path) for path in paths if path.is_dir()},
        "files": {mode_of(path) for path in paths if path.is_file()},
    }


def check_modes(warehouse: Path, access: str) -> None:
    folder, file = PUBLISHED[access]
    assert modes_below(warehouse / "generations") == {"folders": {folder}, "files": {file}}
    assert modes_below(warehouse / "work") == {"folders": {0o700}, "files": {0o600}}


@pytest.mark.parametrize("access", PUBLISHED)
def test_a_warehouse_is_its_owners_unless_the_setting_opens_what_is_published(
    access: str, sandboxed: Desk, world: World
) -> None:
    """A file that DuckDB, dlt or a copy made with the user's umask; or a group that cannot read what it should."""
    if access != "owner":
        sandboxed.environment[MODE] = access
    for _ in range(2):
        sandboxed.sync()
        check_modes(sandboxed.warehouse, access)
        assert mode_of(sandboxed.warehouse) == PUBLISHED[access][0]
        world.live_a_day()
    # a run without a change leaves a log of a few lines beside the shared file
    sandboxed.sync()
    sandboxed.sync()
    check_modes(sandboxed.warehouse, access)
    with duckdb.connect(str(sandboxed.published), read_only=True) as reader:
        assert reader.execute("SELECT count(*) > 0 FROM ops.runs").fetchall() == [(True,)]


def test_no_file_is_open_to_others_even_for_a_moment(desk: Desk, serve: Callable[[World], SandboxServer]) -> None:
    """DuckDB's log and dlt's packages live for seconds, and hold everything."""
    world = World(7, recordings=4_000, users=12, connections=2_000, meetings=60)
    desk.environment = serve(world).environment()
    running = desk.start("sync")
    seen: set[str] = set()
    exposed = []
    while running.running:
        # unlike Path.rglob it passes over what vanishes meanwhile
        for folder, folders, files in os.walk(desk.warehouse):
            for path in (Path(folder) / name for name in (*folders, *files)):
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    seen.add(path.suffix)
                    if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o077:
                        exposed.append(path)
    assert running.wait().code == 0
    assert {".duckdb", ".wal", ".parquet"} <= seen
    assert exposed == []


def test_a_changed_setting_holds_for_every_kept_generation(sandboxed: Desk) -> None:
    """Generations that share one file: the setting of the last run would open or close them all, or none."""
    sandboxed.sync()
    for access in ("group", "everyone", "owner", "everyone", "group"):
        sandboxed.environment[MODE] = access
        sandboxed.sync()
        check_modes(sandboxed.warehouse, access)
    files = list(sandboxed.warehouse.glob("generations/*/deskhouse.duckdb"))
    assert len({file.stat().st_ino for file in files}) < len(files)


def test_an_older_warehouse_is_tightened_by_the_next_run(sandboxed: Desk) -> None:
    """What was made before there were permissions, or by a careless copy, stays open."""
    sandboxed.sync()
    for path in (sandboxed.warehouse, *sandboxed.warehouse.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o777 if path.is_dir() else 0o666)
    sandboxed.sync()
    check_modes(sandboxed.warehouse, "owner")


def test_the_group_that_the_folder_hands_on_is_kept(sandboxed: Desk) -> None:
    """A set-group-ID bit taken away, after which dashboards lose the file at the next run."""
    groups = [g for g in (os.getgroups() if os.getuid() else [4321]) if g != os.getgid()] or [os.getgid()]
    sandboxed.environment[MODE] = "group"
    sandboxed.sync()
    os.chown(sandboxed.warehouse, -1, groups[0])
    sandboxed.warehouse.chmod(0o2750)
    for _ in range(2):
        sandboxed.sync()
    assert mode_of(sandboxed.warehouse) == 0o2750
    newest = (sandboxed.warehouse / "current").resolve()
    assert mode_of(newest) & 0o777 == 0o750
    generations = sandboxed.warehouse / "generations"
    assert {path.lstat().st_gid for path in (generations, *generations.rglob("*"))} == {groups[0]}
    # a folder that hands its group on goes on doing so
    generations.chmod(0o2750)
    sandboxed.sync()
    assert mode_of(generations) == 0o2750


def test_a_folder_of_the_users_own_is_opened_as_far_as_needed_and_never_closed(sandboxed: Desk) -> None:
    """A folder that others use too, closed to them by a run; or one that keeps a group from what is published."""
    sandboxed.warehouse.mkdir(0o711)
    sandboxed.sync()
    assert mode_of(sandboxed.warehouse) == 0o711
    sandboxed.environment[MODE] = "group"
    sandboxed.sync()
    assert mode_of(sandboxed.warehouse) == 0o751


@pytest.mark.parametrize("value", ["0640", "world", "Group"])
def test_a_word_that_is_no_setting_touches_nothing(value: str, sandboxed: Desk) -> None:
    sandboxed.environment[MODE] = value
    finished = sandboxed.run("sync")
    assert finished.code == 2
    assert MODE in finished.stderr
    assert all(word in finished.stderr for word in Access)
    assert list(sandboxed.cwd.iterdir()) == []


# ---- links


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A folder outside, with everything a run might take for its own."""
    folder = tmp_path / "canary"
    for name in ("work/dlt/screendesk/state.json", "deskhouse.duckdb", "screendesk/state.json", "any/deskhouse.duckdb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    return folder


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in (folder, *folder.rglob("*"))
    }


def plant(place: Path, target: Path) -> None:
    """A link to `target`, instead of whatever is there."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


@pytest.mark.parametrize("first", [True, False], ids=["no-run-before", "a-run-before"])
@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("work", "work"),
        ("generations", ""),
        ("work/deskhouse.duckdb", "deskhouse.duckdb"),
        ("work/deskhouse.duckdb", "not-there"),
        ("work/deskhouse.duckdb.wal", "not-there"),
        ("work/deskhouse.duckdb.tmp", "any"),
        ("work/dlt", "work/dlt"),
        ("work/dlt/screendesk", "screendesk"),
        ("work/dlt/screendesk/state.json", "screendesk/state.json"),
        ("work/lock", "deskhouse.duckdb"),
        ("work/lock", "not-there"),
        ("work/published.json", "deskhouse.duckdb"),
        ("work/.tmp-published", "deskhouse.duckdb"),
        ("work/.tmp-restore", "any"),
    ],
)
def test_nothing_is_written_or_deleted_through_a_link(
    place: str, target: str, sandboxed: Desk, canary: Path, *, first: bool
) -> None:
    """A link planted in the warehouse makes a run fill, empty or re-permission what it leads to."""
    if not first:
        sandboxed.sync()
    before = state_of(canary)
    plant(sandboxed.warehouse / place, canary / target)
    for command in (["sync"], ["quarantine", "retry"]):
        finished = sandboxed.run(*command)
        assert finished.code == 1, finished.output
        if command == ["sync"]:
            assert str(sandboxed.warehouse / place) in finished.stderr.replace("\n", "")
            assert "is a link" in finished.stderr
    assert state_of(canary) == before


@pytest.mark.parametrize(
    "place",
    [
        "current",
        "generations/20200101T000000.000000Z-old",
        "generations/.tmp-20200101T000000.000000Z-old",
        "generations/note",
        ".tmp-current-x",
    ],
)
def test_links_that_a_run_replaces_or_leaves_alone_lead_to_no_harm(place: str, sandboxed: Desk, canary: Path) -> None:
    """A sweep, a flip or a pruning that follows a link; or a warehouse that is stuck because of one."""
    before = state_of(canary)
    plant(sandboxed.warehouse / place, canary / "any")
    sandboxed.environment[MODE] = "everyone"
    for _ in range(2):
        sandboxed.sync()
    assert (sandboxed.warehouse / "current").resolve().is_relative_to(sandboxed.warehouse.resolve())
    assert state_of(canary) == before


def test_a_published_file_that_is_a_link_is_neither_opened_to_readers_nor_restored_from(
    sandboxed: Desk, canary: Path
) -> None:
    """A generation whose database was replaced by a link: its target would be copied in, or made readable to everyone."""
    sandboxed.sync()
    shutil.rmtree(sandboxed.warehouse / "work")
    shutil.copy(sandboxed.published, canary / "deskhouse.duckdb")
    (canary / "deskhouse.duckdb").chmod(0o600)
    before = state_of(canary)
    plant(sandboxed.published.resolve(), canary / "deskhouse.duckdb")
    sandboxed.environment[MODE] = "everyone"
    finished = sandboxed.sync()
    assert finished.receipt("screendesk.recordings")["inserted"] > 0
    assert state_of(canary) == before


def test_who_looks_for_the_lock_follows_no_link(tmp_path: Path) -> None:
    """A link to a file that blocks whoever opens it, or that is somebody else's."""
    (tmp_path / "elsewhere").write_text('{"pid": 1}')
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    assert lock_holder(tmp_path / "lock") is None
