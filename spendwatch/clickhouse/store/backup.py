"""Backup and restore of the embedded store while it runs, each proven: a backup by restoring it into a store of its
own, a restore by comparing every figure with what was proven then.

The engine writes into, and reads from, the folder `backups` of its data folder only; files are linked or copied between
there and where the operator wants them. Never here: a ClickHouse server's backups, which are the server's own affair.
"""

# ruff: noqa: S608  # names in the SQL come from the engine or from here

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from spendwatch.clickhouse import rollup
from spendwatch.clickhouse.client import Connection, connect
from spendwatch.clickhouse.store import archive
from spendwatch.errors import ConfigError, StoreError

_POLL_S = 0.1
_MARGIN = timedelta(minutes=2)
"""Sums made so shortly before a backup began may know calls that the backup lacks; they are made again."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What must be the same before and after: all calls, and all hourly sums in force. Costs in USD, as text."""

    calls: int
    cost: str
    input_tokens: int
    output_tokens: int
    summed_calls: int
    summed_cost: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A backup that was made. figures: None when it was not verified."""

    path: Path
    size_bytes: int
    base: Path | None
    figures: Figures | None


def figures(ch: Connection) -> Figures:
    """Count and sum everything. Raises StoreError."""
    ((calls, cost, read, written),) = ch.query(
        "figures",
        "SELECT count(), toString(sum(ifNull(effective_cost, 0))), sum(toUInt64(ifNull(input_tokens, 0))), "
        "sum(toUInt64(ifNull(output_tokens, 0))) FROM llm_calls FINAL",
    )
    ((summed, summed_cost),) = ch.query(
        "figures", "SELECT sum(calls), toString(sum(effective_cost)) FROM llm_calls_hourly_newest"
    )
    return Figures(calls, cost, read, written, summed, summed_cost)


def backups_folder(ch: Connection) -> Path:
    """Where the engine keeps backups. Raises ConfigError when that is not an embedded store of this machine."""
    disks = dict(ch.query("disks", "SELECT name, path FROM system.disks"))
    folder = Path(disks.get("backups", "/nowhere"))
    if not (folder.parent / "store.lock").exists() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            "expected the embedded store of this machine, found a ClickHouse server (or a store whose folder can't be "
            "written from here). A server makes its own backups, where its configuration allows them: "
            f"BACKUP DATABASE {ch.database} TO Disk('backups', 'spendwatch.zip'). For the embedded store, run this as "
            "its user on its machine."
        )
    return folder


def backup(ch: Connection, target: Path, *, base: Path | None = None, verify: bool = True) -> Made:
    """Save the whole database into a file (or a new file in a folder), while everything goes on.

    base: an earlier backup; then only what is new since then is saved. Raises ConfigError, StoreError.
    """
    folder = backups_folder(ch)
    target = _target(target)
    bases = [] if base is None else archive.chain(archive.newest(base), target.parent)
    # A later restore looks for the whole chain in one folder.
    elsewhere = [each.path for each in bases if each.path.resolve().parent != target.resolve().parent]
    if elsewhere:
        raise ConfigError(
            f"expected the new backup beside the one it continues, found {elsewhere[0].parent} and {target.parent}. "
            f"Write it into {elsewhere[0].parent}."
        )
    if not bases:
        _check_space(ch, folder)
    with _working(folder) as staged:
        names = archive.stage(bases, folder)
        staged += names.values()
        name = f"new-{secrets.token_hex(8)}.tar"
        staged.append(name)
        settings = f" SETTINGS base_backup = Disk('backups', '{names[bases[0].uuid]}')" if bases else ""
        before = figures(ch) if verify else None
        _run(ch, f"BACKUP DATABASE `{ch.database}` TO Disk('backups', '{name}'){settings} ASYNC", name)
        after = figures(ch) if verify else None
        made = archive.read(folder / name)
        proven = None
        if before is not None and after is not None:
            proven = _restored_elsewhere([made, *bases], folder, ch.database)
            _compare(proven, before, after)
        _deliver(folder / name, target)
        if proven is not None:
            _figures_file(target).write_text(json.dumps(asdict(proven), indent=1) + "\n")
    return Made(path=target, size_bytes=target.stat().st_size, base=bases[0].path if bases else None, figures=proven)


def restore(ch: Connection, source: Path, *, replace: bool = False) -> Figures:
    """Bring a backup (the newest, of a folder) back; the figures of what is there now.

    replace: take the place of the calls that are there. They are dropped only after the backup has been restored and
    its figures are right. Raises ConfigError, StoreError.
    """
    folder = backups_folder(ch)
    archives = archive.chain(archive.newest(source))
    tables = [str(name) for (name,) in ch.query("tables", "SHOW TABLES")]
    aside = {name: f"before_restore_{secrets.token_hex(4)}_{name}" for name in tables}
    if not replace:
        full = [name for name in tables if ch.query("rows", f"SELECT 1 FROM `{name}` LIMIT 1")]
        if set(full) - {"spendwatch_migrations"}:
            raise ConfigError(
                f"expected an empty store to restore into, found rows in {', '.join(full)}. "
                "Use an empty one, or say --replace to put the backup in their place."
            )
    with _working(folder) as staged:
        names = archive.stage(archives, folder)
        staged += names.values()
        name = names[archives[0].uuid]
        for old, new in aside.items():
            ch.command("restore", f"RENAME TABLE `{old}` TO `{new}`")
        try:
            _run(ch, f"RESTORE DATABASE `{ch.database}` FROM Disk('backups', '{name}') ASYNC", name)
            found = figures(ch)
            expected = _proven_figures(archives[0].path)
            if expected is not None and expected != found:
                raise StoreError(f"expected the backup to hold {expected}, found {found}.", permanent=True)
        except BaseException:
            for (present,) in ch.query("tables", "SHOW TABLES"):
                if present not in aside.values():
                    ch.command("restore", f"DROP TABLE `{present}` SYNC")
            for old, new in aside.items():
                ch.command("restore", f"RENAME TABLE `{new}` TO `{old}`")
            raise
        for new in aside.values():
            ch.command("restore", f"DROP TABLE `{new}` SYNC")
    _sum_again(ch, archives[0].made_at)
    return figures(ch)


def _sum_again(ch: Connection, made_at: datetime) -> None:
    """The tables of a backup are not of one instant: sums may know calls that came a moment too late for it. Forget the
    latest sums and how far the roller had looked; it then sums every hour that has calls anew."""
    ch.command(
        "restore",
        "DELETE FROM llm_calls_generations WHERE hour = toDateTime(0, 'UTC') "
        "OR rolled_through >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')",
        {"since": int((made_at - _MARGIN).timestamp() * 1000)},
    )
    rollup.roll(ch)


def _target(target: Path) -> Path:
    target = target.expanduser().absolute()
    if target.is_dir():
        target /= f"spendwatch-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}.tar"
    if target.suffix != ".tar":
        raise ConfigError(f"expected a folder or a file name that ends in .tar, found {target}.")
    if target.exists():
        raise ConfigError(f"expected a new file, found that {target} is there already. Choose another name.")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"expected a folder that can be written at {target.parent}, found none. Make it, or name another one."
        )
    return target


def _check_space(ch: Connection, folder: Path) -> None:
    ((needed,),) = ch.query(
        "size", "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()"
    )
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"expected {needed >> 20} MiB free at {folder} for a full backup, found {free >> 20} MiB. Make room, or "
            "save only what is new with --base."
        )


@contextlib.contextmanager
def _working(folder: Path) -> Iterator[list[str]]:
    """The names staged in the folder meanwhile; they are gone afterwards."""
    staged: list[str] = []
    try:
        yield staged
    except OSError as error:
        raise ConfigError(
            f"expected to copy the backup, found: {error.strerror or error} ({error.filename2 or error.filename}). "
            "Make room there, or choose another place."
        ) from None
    finally:
        for name in staged:
            (folder / name).unlink(missing_ok=True)


def _run(ch: Connection, sql: str, name: str) -> None:
    """Run a BACKUP or RESTORE in the background of the engine and wait for it: it may take longer than a request."""
    ch.command("backup", sql)
    while True:
        rows = ch.query(
            "backup_status",
            "SELECT status, error FROM system.backups WHERE name = {name:String} ORDER BY start_time DESC LIMIT 1",
            {"name": f"Disk('backups', '{name}')"},
        )
        status, error = rows[0] if rows else ("UNKNOWN", "the store was restarted meanwhile")
        if status in ("BACKUP_CREATED", "RESTORED"):
            return
        if status not in ("CREATING_BACKUP", "RESTORING"):
            said = str(error).partition(", Stack trace")[0]
            raise StoreError(f"the store could not finish {sql.split(' ')[0]}: {said}", permanent=True)
        time.sleep(_POLL_S)


def _restored_elsewhere(archives: list[archive.Archive], folder: Path, database: str) -> Figures:
    """Restore into a store of its own and count there. Raises StoreError, ConfigError, OSError."""
    with tempfile.TemporaryDirectory(prefix="verify-", dir=folder) as scratch:
        room = Path(scratch)
        (room / "password").write_text(password := secrets.token_urlsafe(24))
        (room / "data" / "backups").mkdir(parents=True)
        names = archive.stage(archives, room / "data" / "backups")
        command = [sys.executable, "-m", "spendwatch.clickhouse.store", "--data", str(room / "data"), "--port", "0"]
        command += ["--database", database, "--password-file", str(room / "password"), "--exit-with-parent"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None  # noqa: S101  # a pipe, as the next
                assert process.stderr is not None  # noqa: S101
                line = process.stdout.readline()
                if "ready: " not in line:
                    raise StoreError(f"the store that was to verify the backup did not start: {process.stderr.read()}")
                url = line.split("ready: ")[1].split(" ")[0]
                with connect(url.replace("//", f"//spendwatch:{password}@"), caller="verify") as ch:
                    name = names[archives[0].uuid]
                    _run(ch, f"RESTORE DATABASE `{database}` FROM Disk('backups', '{name}') ASYNC", name)
                    return figures(ch)
            finally:
                process.terminate()


def _compare(proven: Figures, before: Figures, after: Figures) -> None:
    """A backup holds what there was at an instant between two looks."""
    low, high = sorted((before.calls, after.calls))
    if not low <= proven.calls <= high or (before == after and proven != before):
        raise StoreError(
            f"the backup was restored and does not hold what the store does: expected {before} to {after}, found "
            f"{proven}. It was not kept. Try again; if it stays so, look at the store's log.",
            permanent=True,
        )


def _deliver(made: Path, target: Path) -> None:
    """Where the operator wants it, whole and on the disk, or not at all. Raises OSError."""
    archive.place(made, target)
    for place, flags in ((target, os.O_RDONLY), (target.parent, os.O_RDONLY | os.O_DIRECTORY)):
        handle = os.open(place, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _figures_file(path: Path) -> Path:
    return path.with_name(path.name + ".figures.json")


def _proven_figures(path: Path) -> Figures | None:
    with contextlib.suppress(FileNotFoundError):
        return Figures(**json.loads(_figures_file(path).read_text()))
    return None
