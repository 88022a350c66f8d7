"""Publishing and restoring, with real DuckDB files, real readers and real kills."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import copies
from pipelines import publish as module
from pipelines.database import connect
from pipelines.publish import _expendable, is_published, publish
from pipelines.restore import restore_private, sweep_leftovers
from pipelines.warehouse import Generation, PublishError, Warehouse, current_generation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return _loaded(tmp_path / "warehouse")


def _loaded(root: Path, rows: int = 10) -> Warehouse:
    warehouse = Warehouse(root)
    warehouse.work.mkdir(parents=True)
    _load(warehouse, rows)
    return warehouse


def _load(warehouse: Warehouse, rows: int) -> None:
    with duckdb.connect(str(warehouse.private_database)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (i BIGINT)")
        connection.execute("INSERT INTO t SELECT range FROM range(?)", [rows])


def _rows(database: Path) -> int:
    with duckdb.connect(str(database), read_only=True) as connection:
        return int(connection.execute("SELECT count(*) FROM t").fetchall()[0][0])


def _at(moment: datetime) -> Callable[[], datetime]:
    return lambda: moment


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def _started(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _leave_wal(database: Path) -> None:
    """Write to a database as a tool does that opens it read-write and dies."""
    script = """
import duckdb, os, signal, sys
connection = duckdb.connect(sys.argv[1])
connection.execute("INSERT INTO t SELECT -range FROM range(1000)")
os.kill(os.getpid(), signal.SIGKILL)
"""
    with _started(script, database) as process:
        process.wait()
    assert database.with_name(f"{database.name}.wal").exists()


# what readers see


def test_a_publish_is_one_complete_closed_file_behind_a_relative_link(warehouse: Warehouse) -> None:
    generation = publish(warehouse, "run-1", now=_at(NOON))
    assert generation.name == "20261122T120000.000000Z-run-1"
    assert (generation.run_id, generation.published_at) == ("run-1", NOON)
    assert generation.bytes == warehouse.private_database.stat().st_size
    assert str(warehouse.current.readlink()) == f"generations/{generation.name}"
    assert _names(warehouse.current) == {"deskhouse.duckdb"}
    assert _names(warehouse.root) == {"current", "generations", "work"}
    assert warehouse.published_database.stat().st_ino != warehouse.private_database.stat().st_ino
    assert _rows(warehouse.published_database) == 10
    assert current_generation(warehouse) == generation


def test_a_moved_warehouse_still_reads(warehouse: Warehouse, tmp_path: Path) -> None:
    publish(warehouse, "run")
    moved = Warehouse(warehouse.root.rename(tmp_path / "moved"))
    assert _rows(moved.published_database) == 10


def test_a_reader_that_polls_through_20_publishes_meets_no_error_and_no_shorter_table(warehouse: Warehouse) -> None:
    script = """
import duckdb, json, sys
from pathlib import Path
reads, errors, shrunk, torn, last = 0, [], 0, 0, 0
print("ready", flush=True)
while True:
    over = Path(sys.argv[2]).exists()
    try:
        with duckdb.connect(sys.argv[1], read_only=True) as connection:
            rows, distinct = connection.execute("SELECT count(*), count(DISTINCT i) FROM t").fetchall()[0]
        shrunk += rows < last
        torn += distinct != 10
        reads, last = reads + 1, rows
    except Exception as error:
        errors.append(str(error))
    if over:
        break
print(json.dumps([reads, errors, shrunk, torn, last]))
"""
    publish(warehouse, "run-0")
    over = warehouse.root / "over"
    with _started(script, warehouse.published_database, over) as reader:
        assert _line(reader) == "ready"
        for number in range(1, 21):
            _load(warehouse, 10)
            publish(warehouse, f"run-{number}")
        over.touch()
        reads, errors, shrunk, torn, last = json.loads(_line(reader))
    assert (errors, shrunk, torn, last) == ([], 0, 0, 210)
    assert reads > 20


def test_a_long_lived_attach_keeps_answering_and_a_new_one_sees_the_flip(warehouse: Warehouse) -> None:
    publish(warehouse, "run-1")
    with duckdb.connect() as old, duckdb.connect() as new:
        old.execute(f"ATTACH '{warehouse.published_database}' AS w (READ_ONLY)")
        for number in range(2, 7):
            _load(warehouse, 10)
            publish(warehouse, f"run-{number}", min_age=timedelta())
            assert old.execute("SELECT count(*) FROM w.t").fetchall() == [(10,)]
        new.execute(f"ATTACH '{warehouse.published_database}' AS w (READ_ONLY)")
        assert new.execute("SELECT count(*) FROM w.t").fetchall() == [(60,)]


# what is refused, and leaves readers what they had


def test_a_missing_private_database_is_not_published_as_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="does not exist"):
        publish(Warehouse(tmp_path), "run")


def test_a_private_database_with_a_log_is_not_published_without_its_newest_rows(warehouse: Warehouse) -> None:
    _leave_wal(warehouse.private_database)
    generation = publish(warehouse, "run")
    assert _rows(warehouse.published_database) == 1010
    assert _names(generation.path) == {"deskhouse.duckdb"}


# a run that changed no row


def _note_in_log(database: Path, value: int) -> None:
    """Write a line as the ledger does: it stays in the log."""
    with connect(database) as connection:
        connection.execute(f"INSERT INTO t VALUES ({value})")


def test_a_short_log_is_published_beside_the_shared_database(warehouse: Warehouse) -> None:
    """A copy of everything for a few lines; or readers that do not see when the last run was."""
    first = publish(warehouse, "run-1")
    assert is_published(warehouse)
    for number in range(3):
        _note_in_log(warehouse.private_database, -number)
        assert not is_published(warehouse)
        quiet = publish(warehouse, f"quiet-{number}")
        assert is_published(warehouse)
        assert quiet.database.stat().st_ino == first.database.stat().st_ino
        assert _rows(warehouse.published_database) == 11 + number
    assert _rows(first.database) == 10


def test_a_long_log_and_a_changed_database_are_copied(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that grows for ever, which every reader replays; or new rows hidden behind an old copy."""
    first = publish(warehouse, "run-1")
    monkeypatch.setattr(module, "_LONGEST_LOG", 10)
    _note_in_log(warehouse.private_database, -1)
    folded = publish(warehouse, "long")
    monkeypatch.undo()
    with duckdb.connect(str(warehouse.private_database)) as connection:
        connection.execute("INSERT INTO t VALUES (-2)")
    changed = publish(warehouse, "changed")
    assert len({one.database.stat().st_ino for one in (first, folded, changed)}) == 3
    assert [_names(one.path) for one in (folded, changed)] == [{"deskhouse.duckdb"}] * 2
    assert _rows(folded.database) == 11


def test_what_a_tool_wrote_into_a_generation_is_not_shared(warehouse: Warehouse) -> None:
    """A tool that opens the published file for writing and closes it: its rows would reach every later generation."""
    first = publish(warehouse, "run-1")
    with duckdb.connect(str(first.database)) as tool:
        tool.execute("INSERT INTO t VALUES (-9)")
    _note_in_log(warehouse.private_database, -1)
    assert publish(warehouse, "run-2").database.stat().st_ino != first.database.stat().st_ino
    assert _rows(warehouse.published_database) == 11


def test_a_generation_is_restored_with_its_log(warehouse: Warehouse) -> None:
    publish(warehouse, "run-1")
    _note_in_log(warehouse.private_database, -1)
    publish(warehouse, "run-2")
    shutil.rmtree(warehouse.work)
    assert restore_private(warehouse) is not None
    assert _rows(warehouse.private_database) == 11


def test_publishing_with_a_connection_open_here_does_not_drop_its_lock(warehouse: Warehouse) -> None:
    with (
        duckdb.connect(str(warehouse.private_database)),
        pytest.raises(PublishError, match="still open in this process"),
    ):
        publish(warehouse, "run")


def test_a_private_database_that_another_process_writes_to_is_not_copied(warehouse: Warehouse) -> None:
    script = (
        "import duckdb, sys, time\nc = duckdb.connect(sys.argv[1])\nprint('open', flush=True)\ntime.sleep(60)\ndel c\n"
    )
    with _started(script, warehouse.private_database) as writer:
        assert _line(writer) == "open"
        with pytest.raises(PublishError, match="open for writing in another process"):
            publish(warehouse, "run")
    publish(warehouse, "run")


def test_a_database_without_tables_does_not_replace_one_with_tables(warehouse: Warehouse) -> None:
    first = publish(warehouse, "run-1")
    warehouse.private_database.unlink()
    duckdb.connect(str(warehouse.private_database)).close()
    with pytest.raises(PublishError, match="no table"):
        publish(warehouse, "run-2")
    assert current_generation(warehouse) == first


def test_a_damaged_copy_is_not_published(warehouse: Warehouse) -> None:
    first = publish(warehouse, "run-1")
    with warehouse.private_database.open("r+b") as file:
        file.write(bytes(12288))
    with pytest.raises(PublishError, match="failed its check"):
        publish(warehouse, "run-2")
    assert current_generation(warehouse) == first
    assert _names(warehouse.generations) == {first.name}


def _count_wrongly(copy: Path) -> None:
    raise LookupError(f"rows are missing in {copy.name}")


def _write(copy: Path) -> None:
    _leave_wal(copy)


_leaked: list[duckdb.DuckDBPyConnection] = []


def _leave_open(copy: Path) -> None:
    _leaked.append(duckdb.connect(str(copy), read_only=True))


@pytest.mark.parametrize(
    ("verify", "message"),
    [
        pytest.param(_count_wrongly, "rows are missing", id="refuses"),
        pytest.param(_write, "left a .wal", id="writes"),
        pytest.param(_leave_open, "left it open", id="leaves open"),
    ],
)
def test_a_copy_that_its_check_refuses_or_spoils_never_becomes_current(
    warehouse: Warehouse, verify: Callable[[Path], None], message: str
) -> None:
    first = publish(warehouse, "run-1")
    with pytest.raises(PublishError, match=message):
        publish(warehouse, "run-2", verify=verify)
    while _leaked:
        _leaked.pop().close()
    assert current_generation(warehouse) == first
    assert _names(warehouse.generations) == {first.name}


def test_a_real_folder_at_current_is_neither_filled_nor_deleted(warehouse: Warehouse) -> None:
    warehouse.current.mkdir()
    (warehouse.current / "mine").touch()
    with pytest.raises(PublishError, match="move it away"):
        publish(warehouse, "run")
    assert _names(warehouse.current) == {"mine"}
    assert current_generation(warehouse) is None
    assert not warehouse.generations.exists()


@pytest.mark.parametrize("folder", ["work", "generations"])
@pytest.mark.parametrize("act", [lambda w: publish(w, "run"), sweep_leftovers, restore_private])
def test_a_folder_that_leads_outside_the_warehouse_is_not_written_or_swept(
    warehouse: Warehouse, tmp_path: Path, folder: str, act: Callable[[Warehouse], Any]
) -> None:
    outside = tmp_path / "outside"
    if folder == "work":
        warehouse.work.rename(outside)
    (outside / ".tmp-restore").mkdir(parents=True)
    (outside / ".tmp-mine").mkdir()
    before = _names(outside)
    (warehouse.root / folder).symlink_to(outside)
    with pytest.raises(PublishError, match=f"{folder} is a link that leads outside"):
        act(warehouse)
    assert _names(outside) == before


@pytest.mark.parametrize("run_id", ["", "../../up", "a/b", "x" * 151])
def test_a_run_id_cannot_name_a_folder_elsewhere(warehouse: Warehouse, run_id: str) -> None:
    with pytest.raises(ValueError, match="run id"):
        publish(warehouse, run_id)


def test_a_flip_that_fails_leaves_no_unread_copy_to_pile_up(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(warehouse, "run-1")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(PublishError, match="no links here"):
        publish(warehouse, "run-2")
    assert current_generation(warehouse) == first
    assert _names(warehouse.generations) == {first.name}


# a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Warehouse]:
    """A warehouse of 1.5 copies on a disk of two."""
    root = tmp_path / "disk"
    root.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", root], check=False).returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        warehouse = _loaded(root / "warehouse")
        publish(warehouse, "run-1")
        (root / "filler").write_bytes(os.urandom(shutil.disk_usage(root).free - 100_000))
        yield warehouse
    finally:
        subprocess.run(["umount", root], check=True)


@pytest.mark.parametrize("known", [True, False], ids=["seen before copying", "met while copying"])
def test_a_full_disk_costs_no_reader_anything_and_leaves_no_half_copy(
    small_disk: Warehouse, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    small_disk.last_published.unlink()
    if not known:
        monkeypatch.setattr(copies, "_require_space", lambda *_: None)
    size = small_disk.private_database.stat().st_size
    with pytest.raises(PublishError, match=f"the disk is full: this copy needs {size:,} bytes and") as refused:
        publish(small_disk, "run-2")
    assert str(small_disk.generations) in str(refused.value)
    assert len(_names(small_disk.generations)) == 1
    assert _rows(small_disk.published_database) == 10
    (small_disk.root.parent / "filler").unlink()
    publish(small_disk, "run-3")


def test_blocks_that_the_file_system_shares_are_not_copied_again_or_counted_as_space(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for a file system with reflinks, which a test cannot count on; it shows the order, not the sharing."""

    def clone(target: BinaryIO, request: int, source: int) -> None:
        assert request == 0x40049409
        os.pwrite(target.fileno(), os.pread(source, os.fstat(source).st_size, 0), 0)

    monkeypatch.setattr(fcntl, "ioctl", clone)
    monkeypatch.setattr(copies, "_require_space", lambda *_: pytest.fail("asked for space"))
    monkeypatch.setattr(copies, "_copy_bytes", lambda *_: pytest.fail("copied again"))
    publish(warehouse, "run")
    assert _rows(warehouse.published_database) == 10


def test_a_file_system_without_kernel_copies_still_gets_a_whole_one(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(source: int, target: int, count: int, at: int, to: int) -> int:
        if at:
            raise OSError(errno.EXDEV, "not here")
        return os.pwrite(target, os.pread(source, 5000, at), to)

    monkeypatch.setattr(os, "copy_file_range", part)
    publish(warehouse, "run")
    assert warehouse.published_database.read_bytes() == warehouse.private_database.read_bytes()


def test_a_piece_that_does_not_reach_the_disk_is_told_and_not_published(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system says once that a write failed: a copy that asks again at its end would pass for a whole one."""
    publish(warehouse, "run-1")
    with duckdb.connect(str(warehouse.private_database)) as connection:
        connection.execute("INSERT INTO t SELECT range FROM range(100)")
    failures = iter([OSError(errno.EIO, "the disk")])

    def once(_: int) -> None:
        for failure in failures:
            raise failure

    monkeypatch.setattr(copies, "_PIECE", 4096)
    monkeypatch.setattr(os, "fdatasync", once)
    with pytest.raises(PublishError, match="the disk"):
        publish(warehouse, "run-2")
    assert len(_names(warehouse.generations)) == 1
    publish(warehouse, "run-3")
    assert warehouse.published_database.read_bytes() == warehouse.private_database.read_bytes()


# kills

_PUBLISH_FOR_EVER = """
import sys
from itertools import count
from pathlib import Path
from datetime import timedelta
from pipelines.publish import publish
from pipelines.warehouse import Warehouse
print("ready", flush=True)
for number in count():
    publish(Warehouse(Path(sys.argv[1])), f"killed-{number}", min_age=timedelta())
"""

_PUBLISH_AND_DIE = """
import os, signal, sys
from pathlib import Path
from datetime import timedelta
from pipelines.publish import publish
from pipelines.warehouse import Warehouse
steps = ["os.mkdir", "os.rename", "os.symlink", "os.remove", "shutil.rmtree", "os.rmdir"]
left = int(sys.argv[2])
def die(event, arguments):
    global left
    if event in steps:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
publish(Warehouse(Path(sys.argv[1])), "killed", keep=1, min_age=timedelta())
print("done", flush=True)
"""


def _assert_survived(warehouse: Warehouse) -> None:
    assert current_generation(warehouse) is not None
    assert _rows(warehouse.published_database) == 10
    sweep_leftovers(warehouse)
    assert not [path for folder in ("", "generations", "work") for path in (warehouse.root / folder).glob(".tmp-*")]
    publish(warehouse, "after", keep=1, min_age=timedelta())
    assert len(_names(warehouse.generations)) == 1


def test_kill_9_at_10_random_moments_leaves_a_complete_current_and_a_sweep_cleans_up(warehouse: Warehouse) -> None:
    publish(warehouse, "run")
    moments = random.Random(7)
    for _ in range(10):
        with _started(_PUBLISH_FOR_EVER, warehouse.root) as publisher:
            assert _line(publisher) == "ready"
            time.sleep(moments.uniform(0, 0.08))
        _assert_survived(warehouse)


def test_kill_9_before_each_single_step_leaves_a_complete_current_and_a_sweep_cleans_up(warehouse: Warehouse) -> None:
    publish(warehouse, "run")
    left_over = 0
    for step in range(20):
        with _started(_PUBLISH_AND_DIE, warehouse.root, step) as publisher:
            done = _line(publisher) == "done"
        left_over += bool(list(warehouse.root.glob(".tmp-*")) + list(warehouse.generations.glob(".tmp-*")))
        _assert_survived(warehouse)
        if done:
            break
    assert done
    assert step > 5
    assert left_over > 3


def test_a_sweep_says_what_it_removed_and_removes_nothing_else(warehouse: Warehouse) -> None:
    publish(warehouse, "run")
    keep = _names(warehouse.root) | _names(warehouse.work) | _names(warehouse.generations)
    half_made = warehouse.generations / ".tmp-20261122T120000.000000Z-x"
    half_made.mkdir()
    (half_made / "deskhouse.duckdb").touch()
    half_restored = warehouse.work / ".tmp-restore"
    half_restored.mkdir()
    link = warehouse.root / ".tmp-current-x"
    link.symlink_to("generations/x")
    assert set(sweep_leftovers(warehouse)) == {half_made, half_restored, link}
    assert _names(warehouse.root) | _names(warehouse.work) | _names(warehouse.generations) == keep
    assert sweep_leftovers(warehouse) == []


# old generations


def test_old_generations_go_but_never_the_newest_few_or_a_young_one(warehouse: Warehouse) -> None:
    (warehouse.generations / "mine").mkdir(parents=True)
    for day in range(5):
        publish(warehouse, f"day-{day}", now=_at(NOON + day * DAY))
    runs = {name.partition("-")[2] for name in _names(warehouse.generations)}
    assert runs == {"day-2", "day-3", "day-4", ""}
    for minute in range(1, 5):
        publish(warehouse, f"minute-{minute}", now=_at(NOON + 5 * DAY + timedelta(minutes=minute)))
    runs = {name.partition("-")[2] for name in _names(warehouse.generations)}
    assert runs == {"minute-1", "minute-2", "minute-3", "minute-4", ""}


def test_a_clock_that_jumped_back_does_not_get_the_new_generation_pruned_or_hidden(warehouse: Warehouse) -> None:
    for day in range(10, 14):
        publish(warehouse, f"day-{day}", now=_at(NOON + day * DAY))
    for day in range(5):
        generation = publish(warehouse, f"day-{day}", now=_at(NOON + day * DAY), keep=1)
        assert current_generation(warehouse) == generation
        assert _rows(warehouse.published_database) == 10
    assert len(_names(warehouse.generations)) == 4


def test_two_publishes_at_the_same_instant_with_the_same_run_id_do_not_collide(warehouse: Warehouse) -> None:
    published = [publish(warehouse, "run", now=_at(NOON)) for _ in range(3)]
    assert sorted(_names(warehouse.generations)) == [generation.name for generation in published]
    assert current_generation(warehouse) == published[-1]


def test_an_old_generation_that_cannot_be_removed_does_not_fail_the_publish(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = publish(warehouse, "old", now=_at(NOON))

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "not yours", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    new = publish(warehouse, "new", now=_at(NOON + DAY), keep=1)
    monkeypatch.undo()
    assert current_generation(warehouse) == new
    assert "not yours" in caplog.text
    assert [path.name for path in sweep_leftovers(warehouse)] == [f".tmp-{old.name}"]


@given(
    minutes=st.lists(st.integers(-100, 100), unique=True, min_size=1),
    broken=st.sets(st.integers(-100, 100)),
    keep=st.integers(0, 5),
    age=st.integers(0, 50),
    data=st.data(),
)
def test_no_mix_of_times_prunes_the_current_a_young_or_a_newer_generation_than_it_keeps(
    minutes: list[int], broken: set[int], keep: int, age: int, data: st.DataObject
) -> None:
    present = [_generation(minute, complete=minute not in broken) for minute in minutes]
    current = data.draw(st.sampled_from(present))
    min_age = timedelta(minutes=age)
    dropped = _expendable(present, current.name, NOON, keep=keep, min_age=min_age)
    kept = [one for one in present if one not in dropped]
    assert current in kept
    assert all(NOON - one.published_at >= min_age for one in dropped)
    whole = [one for one in present if one.bytes and one.published_at <= NOON]
    assert len([one for one in kept if one in whole]) >= min(keep, len(whole))
    eligible = [one for one in kept if one != current and NOON - one.published_at >= min_age]
    assert len(eligible) <= keep
    assert not [one for one in dropped for other in eligible if one.bytes >= other.bytes and one.name > other.name]


def _generation(minute: int, *, complete: bool) -> Generation:
    at = NOON + timedelta(minutes=minute)
    path = Path(at.isoformat())
    return Generation(path.name, path, path / "deskhouse.duckdb", at, "run", int(complete))


# what is lost, and comes back


def test_a_warehouse_without_a_current_has_none_rather_than_an_error(warehouse: Warehouse) -> None:
    assert current_generation(warehouse) is None
    generation = publish(warehouse, "run")
    generation.database.unlink()
    assert current_generation(warehouse) is None
    generation.path.rmdir()
    assert current_generation(warehouse) is None
    warehouse.current.unlink()
    warehouse.current.symlink_to("current")
    assert current_generation(warehouse) is None


def test_a_dangling_current_is_mended_by_the_next_publish_from_the_private_file(warehouse: Warehouse) -> None:
    publish(warehouse, "run-1")
    shutil.rmtree(warehouse.generations)
    assert restore_private(warehouse) is None
    publish(warehouse, "run-2")
    assert _rows(warehouse.published_database) == 10


def test_a_lost_work_folder_comes_back_from_the_current_generation(warehouse: Warehouse) -> None:
    publish(warehouse, "run-1")
    _load(warehouse, 5)
    current = publish(warehouse, "run-2")
    shutil.rmtree(warehouse.work)
    assert restore_private(warehouse) == current.name
    assert _names(warehouse.work) == {"deskhouse.duckdb"}
    _load(warehouse, 1)
    assert _rows(warehouse.private_database) == 16
    assert _rows(warehouse.published_database) == 15


def test_a_rollback_by_hand_is_what_comes_back(warehouse: Warehouse) -> None:
    first = publish(warehouse, "run-1")
    publish(warehouse, "run-2")
    warehouse.current.unlink()
    warehouse.current.symlink_to(first.path)
    shutil.rmtree(warehouse.work)
    assert restore_private(warehouse) == first.name


def test_a_private_database_that_exists_is_never_overwritten_by_an_older_one(warehouse: Warehouse) -> None:
    publish(warehouse, "run")
    _load(warehouse, 5)
    assert restore_private(warehouse) is None
    assert _rows(warehouse.private_database) == 15


def test_a_private_database_emptied_by_a_full_disk_is_not_taken_for_data(warehouse: Warehouse) -> None:
    current = publish(warehouse, "run")
    os.truncate(warehouse.private_database, 0)
    assert restore_private(warehouse) == current.name
    assert _rows(warehouse.private_database) == 10


def test_nothing_to_restore_from_is_a_first_run_with_a_work_folder(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "new")
    assert restore_private(warehouse) is None
    assert _names(warehouse.work) == set()


def test_without_a_current_the_newest_generation_that_opens_comes_back(warehouse: Warehouse) -> None:
    good = publish(warehouse, "good", now=_at(NOON))
    warehouse.last_published.unlink()
    damaged = publish(warehouse, "damaged", now=_at(NOON + DAY))
    warehouse.last_published.unlink()
    emptied = publish(warehouse, "emptied", now=_at(NOON + 2 * DAY))
    damaged.database.write_bytes(bytes(20_000))
    emptied.database.write_bytes(b"")
    warehouse.current.unlink()
    shutil.rmtree(warehouse.work)
    assert restore_private(warehouse) == good.name
    assert _rows(warehouse.private_database) == 10


def test_generations_that_all_fail_to_open_stop_the_run_instead_of_starting_from_nothing(warehouse: Warehouse) -> None:
    publish(warehouse, "run").database.write_bytes(bytes(20_000))
    shutil.rmtree(warehouse.work)
    with pytest.raises(PublishError, match="no generation could take its place"):
        restore_private(warehouse)
    assert _names(warehouse.work) == set()


# a .wal that is not ours


def test_a_wal_left_by_a_tool_in_one_generation_reaches_neither_the_next_nor_a_restore(warehouse: Warehouse) -> None:
    publish(warehouse, "run-1")
    _leave_wal(warehouse.published_database)
    publish(warehouse, "run-2")
    assert _rows(warehouse.published_database) == 10
    _leave_wal(warehouse.published_database)
    shutil.rmtree(warehouse.work)
    assert restore_private(warehouse) is not None
    assert _rows(warehouse.private_database) == 10


def test_the_wal_of_a_lost_private_database_is_not_replayed_into_the_restored_one(warehouse: Warehouse) -> None:
    publish(warehouse, "run")
    _leave_wal(warehouse.private_database)
    warehouse.private_database.unlink()
    assert restore_private(warehouse) is not None
    assert _rows(warehouse.private_database) == 10
    assert _names(warehouse.work) == {"deskhouse.duckdb", "lost-deskhouse.duckdb.wal", "published.json"}
