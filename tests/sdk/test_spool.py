"""The spool: what was kept comes out once and in order, whatever happens to the file; it is bounded and says so."""

import logging
import os
import random
from pathlib import Path

import pytest

from spendwatch import segments
from spendwatch import spool as spools
from spendwatch.segments import FileSegment
from spendwatch.spool import Spool

HEAD = b"the resource"
LIMIT = 1024 * 1024


def drain(spool: Spool) -> list[bytes]:
    out: list[bytes] = []
    for segment in spool.segments():
        while (batch := spool.read(segment, 4096, 7)) is not None:
            out.extend(batch.records)
            spool.ack(segment, batch.upto)
    return out


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


def left_behind(folder: Path, *records: bytes) -> Path:
    """The file of a process that is gone."""
    spool = Spool(folder, HEAD, LIMIT)
    for record in records:
        assert spool.append(record)
    spool.after_fork()  # closes the file, as the end of a process does
    (path,) = files(folder)
    return path


def adopted(folder: Path) -> tuple[Spool, list[bytes]]:
    spool = Spool(folder, b"another resource", LIMIT)
    spool.adopt()
    return spool, drain(spool)


@pytest.mark.parametrize("folder", ["disk", "memory"])
def test_records_come_out_in_order_until_they_are_acknowledged(folder: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path if folder == "disk" else None, HEAD, LIMIT)
    randomness = random.Random(1)
    records = [randomness.randbytes(randomness.choice((1, 50, 900, 9000))) for _ in range(100)]
    for record in records:
        assert spool.append(record)
    first = next(batch for s in spool.segments() if (batch := spool.read(s, 4096, 7)) is not None)
    again = next(batch for s in spool.segments() if (batch := spool.read(s, 4096, 7)) is not None)
    assert first == again
    assert drain(spool) == records
    assert not spool.pending()
    assert spool.append(b"later")
    assert drain(spool) == [b"later"]


def test_space_comes_back_when_records_are_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path, HEAD, LIMIT)
    for _ in range(5):
        for _ in range(100):
            assert spool.append(b"x" * 5000)
        drain(spool)
    assert sum(path.stat().st_size for path in files(tmp_path)) < 200
    assert spool.dropped == 0


def test_a_process_that_records_nothing_leaves_no_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path, HEAD, LIMIT)
    spool.adopt()
    spool.close()
    assert files(tmp_path) == []


def test_a_spool_that_was_emptied_leaves_no_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path, HEAD, LIMIT)
    spool.append(b"x")
    drain(spool)
    spool.close()
    assert files(tmp_path) == []


def test_the_file_of_a_dead_process_is_taken_over_with_its_own_head(tmp_path: Path) -> None:
    left_behind(tmp_path, b"one", b"two")
    spool = Spool(tmp_path, b"another resource", LIMIT)
    spool.adopt()
    assert [s.head for s in spool.segments() if spool.read(s, 100, 1)] == [HEAD]
    assert drain(spool) == [b"one", b"two"]
    assert files(tmp_path) == []


def test_the_file_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    living = Spool(tmp_path, HEAD, LIMIT)
    living.append(b"mine")
    _, found = adopted(tmp_path)
    assert found == []
    assert drain(living) == [b"mine"]


def test_what_was_acknowledged_before_a_crash_is_not_sent_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, HEAD, LIMIT)
    for n in range(10):
        spool.append(b"%d" % n)
    segment = spool.segments()[0]
    batch = spool.read(segment, 4096, 4)
    assert batch is not None
    spool.ack(segment, batch.upto)
    spool.after_fork()
    _, found = adopted(tmp_path)
    assert found == [b"%d" % n for n in range(4, 10)]


@pytest.mark.parametrize("missing", range(1, 20))
def test_a_record_that_a_crash_tore_is_skipped(missing: int, tmp_path: Path) -> None:
    path = left_behind(tmp_path, b"whole", b"torn in two")
    os.truncate(path, path.stat().st_size - missing)
    spool, found = adopted(tmp_path)
    # 8 bytes of frame and 11 of record: at 19 the second one is gone without a trace.
    assert found == [b"whole"]
    assert spool.torn == (0 if missing == 19 else 1)
    assert files(tmp_path) == []


def test_a_damaged_record_in_the_middle_is_skipped_and_the_rest_is_sent(tmp_path: Path) -> None:
    path = left_behind(tmp_path, b"before", b"damaged", b"after")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"damaged", b"dAmaged"))
    spool, found = adopted(tmp_path)
    assert found == [b"before", b"after"]
    assert spool.torn == 1


@pytest.mark.parametrize("size", [0, 5, 15, 20, 30])
def test_a_file_that_was_torn_while_it_was_created_is_removed(size: int, tmp_path: Path) -> None:
    path = left_behind(tmp_path, b"x")
    os.truncate(path, size)
    _, found = adopted(tmp_path)
    assert found == []
    assert files(tmp_path) == []


def test_any_damage_at_all_loses_at_most_what_it_hit(tmp_path: Path) -> None:
    records = [b"record %d" % n for n in range(20)]
    randomness = random.Random(7)
    for _ in range(150):
        path = left_behind(tmp_path, *records)
        data = bytearray(path.read_bytes())
        data[randomness.randrange(len(data))] ^= 1 << randomness.randrange(8)
        path.write_bytes(data)
        _, found = adopted(tmp_path)
        assert set(found) <= set(records)
        for rest in files(tmp_path):
            rest.unlink()


def test_a_file_of_another_version_is_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "00000000000000000001-1-ab.spool"
    path.write_bytes(b"SPENDW9\n" + bytes(100))
    _, found = adopted(tmp_path)
    assert found == []
    assert path.exists()


def test_what_does_not_fit_is_dropped_counted_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path, HEAD, LIMIT)
    kept = sum(spool.append(b"x" * 10_000) for _ in range(200))
    assert 100 <= kept < 106
    assert spool.dropped == 200 - kept
    assert len([r for r in caplog.records if "dropped" in r.message]) == 1
    assert len(drain(spool)) == kept
    assert spool.append(b"room again")


def test_the_limit_counts_what_others_left_behind(tmp_path: Path) -> None:
    left_behind(tmp_path, *[b"x" * 10_000] * 90)
    spool = Spool(tmp_path, HEAD, LIMIT)
    spool.adopt()
    assert sum(spool.append(b"x" * 10_000) for _ in range(50)) < 20


def test_segments_are_closed_when_they_have_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "SEGMENT_BYTES", 10_000)
    spool = Spool(tmp_path, HEAD, LIMIT)
    records = [b"%d" % n * 1000 for n in range(100)]
    for record in records:
        spool.append(record)
    assert len(files(tmp_path)) > 5
    assert drain(spool) == records
    assert len(files(tmp_path)) == 1


def test_a_full_disk_leaves_memory_and_whole_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, HEAD, LIMIT)
    assert spool.append(b"before")
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[: len(data) // 2], at))
    assert spool.append(b"while it is full")
    assert spool.append(b"still full")
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert spool.append(b"after")
    assert len([r for r in caplog.records if "SPENDWATCH_SPOOL_DIR" in r.message]) == 1
    assert spool.volatile() == 2
    assert sorted(drain(spool)) == sorted([b"before", b"while it is full", b"still full", b"after"])


def test_a_record_finished_by_the_garbage_collector_in_mid_write_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, HEAD, LIMIT)
    append = FileSegment.append

    def interrupted(self: FileSegment, record: bytes) -> None:
        monkeypatch.setattr(FileSegment, "append", append)
        spool.append(b"inner")
        append(self, record)

    monkeypatch.setattr(FileSegment, "append", interrupted)
    spool.append(b"outer")
    assert sorted(drain(spool)) == [b"inner", b"outer"]


def test_a_folder_that_can_not_be_used_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with caplog.at_level(logging.WARNING):
        assert spools.open_folder(blocked, "abc") is None
    assert "SPENDWATCH_SPOOL_DIR" in caplog.text


def test_the_folder_is_the_users_own(tmp_path: Path) -> None:
    folder = spools.open_folder(tmp_path / "new", "abc")
    assert folder is not None
    assert folder.stat().st_mode & 0o077 == 0
    spool = Spool(folder, HEAD, LIMIT)
    spool.append(b"x")
    assert files(folder)[0].stat().st_mode & 0o077 == 0
    spool.close()


def test_a_new_file_that_another_process_took_for_a_dead_ones_is_given_up_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, removed = segments.fcntl.flock, []

    def late(fd: int, how: int) -> None:
        # Between the file's creation and its owner's lock, somebody finds it empty and removes it.
        if not removed:
            removed.extend(files(tmp_path))
            removed[0].unlink()
        lock(fd, how)

    monkeypatch.setattr(segments.fcntl, "flock", late)
    left_behind(tmp_path, b"one")
    spool, records = adopted(tmp_path)
    assert records == [b"one"]
    spool.close()


def squeezed(folder: Path) -> list[Path]:
    return [path for path in files(folder) if path.read_bytes().startswith(segments.SQUEEZED)]


def many(spool: Spool, count: int, start: int = 0) -> list[bytes]:
    """Records that are alike, as calls are, each of about 2 KB."""
    out = [b"%08d" % n + b"gen_ai.usage.input_tokens" * 80 for n in range(start, start + count)]
    for record in out:
        assert spool.append(record)
    return out


def test_a_squeezed_backlog_takes_less_space_and_comes_out_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SEGMENT_BYTES", 400_000)
    spool = Spool(tmp_path, HEAD, LIMIT)
    kept = many(spool, 250)
    before = sum(path.stat().st_size for path in files(tmp_path))
    # Some of the first segment has been sent already.
    first = spool.segments()[0]
    batch = spool.read(first, 4096, 7)
    assert batch is not None
    spool.ack(first, batch.upto)
    spool.squeeze()
    assert len(squeezed(tmp_path)) == 1
    assert sum(path.stat().st_size for path in files(tmp_path)) < before / 2
    for start in range(250, 2000, 250):
        kept += many(spool, 250, start)  # more than would fit unsqueezed
        spool.squeeze()
    assert spool.dropped == 0
    assert drain(spool) == kept[len(batch.records) :]
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_squeezed_file_is_adopted_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "SEGMENT_BYTES", 400_000)
    dead = Spool(tmp_path, HEAD, LIMIT)
    kept = many(dead, 300)
    dead.squeeze()
    assert squeezed(tmp_path)
    dead.after_fork()
    heir = Spool(tmp_path, HEAD, LIMIT)
    heir.adopt()
    assert drain(heir) == kept
    assert files(tmp_path) == []


def test_damage_in_a_squeezed_file_costs_the_run_it_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "SEGMENT_BYTES", 900_000)
    dead = Spool(tmp_path, HEAD, 8 * LIMIT)
    kept = many(dead, 500)
    dead.squeeze()
    dead.after_fork()
    (path,) = squeezed(tmp_path)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    heir = Spool(tmp_path, HEAD, LIMIT)
    heir.adopt()
    found = drain(heir)
    assert heir.torn == 1
    assert 200 < len(found) < len(kept)
    assert found == kept[-len(found) :]


def test_a_draft_whose_process_died_is_swept_away_and_one_in_work_is_not(tmp_path: Path) -> None:
    living = Spool(tmp_path, HEAD, LIMIT)
    many(living, 3)
    (segment,) = (segment for segment in living.segments() if isinstance(segment, FileSegment))
    draft = segment.squeeze()
    (tmp_path / "dead.draft").write_bytes(b"half a file")
    other = Spool(tmp_path, HEAD, LIMIT)
    other.adopt()
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".draft", ".spool"]
    draft.remove()
    assert len(drain(living)) == 3


def test_a_segment_that_is_closed_while_it_is_squeezed_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SEGMENT_BYTES", 400_000)
    spool = Spool(tmp_path, HEAD, LIMIT)
    kept = many(spool, 300)
    squeeze = FileSegment.squeeze

    def interrupted(segment: FileSegment) -> FileSegment:
        smaller = squeeze(segment)
        spool.close()
        return smaller

    monkeypatch.setattr(FileSegment, "squeeze", interrupted)
    spool.squeeze()
    assert not squeezed(tmp_path)
    heir = Spool(tmp_path, HEAD, LIMIT)
    heir.adopt()
    assert drain(heir) == kept
