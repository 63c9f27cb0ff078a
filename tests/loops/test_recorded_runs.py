"""The loop detector on recorded runs of real agents (data/README.md)."""

from pathlib import Path

from tests.loops import score

DATA = Path(__file__).parent / "data" / "runs.jsonl.gz"


def test_no_healthy_run_is_told_and_loops_are_told_after_they_began() -> None:
    loops = found = 0
    for run in score.load(DATA):
        told = score.verdicts(run)
        if run["label"] in score.HEALTHY:
            assert told == [], run["run_id"]
        if run["label"] in score.LOOPS:
            loops += 1
            found += any(index >= run["onset"] for index, _ in told)
            assert all(index >= run["onset"] for index, _ in told), run["run_id"]
    assert loops == 14
    assert found >= 7
