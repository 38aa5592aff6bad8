"""Laxity of a handful of jobs, by hand."""

from speciate.core.window import OpenJob, Supply
from speciate.costs.laxity import places


def test_jobs_wait_for_those_due_before_them() -> None:
    jobs = [OpenJob("late", 100.0, 1000.0), OpenJob("soon", 50.0, 200.0)]
    found = places(jobs, Supply(rate=0.5, safety=1.0, tail_s=10.0), now_s=40.0)
    assert [(p.job.job_id, p.work_s, p.laxity_s) for p in found] == [
        ("soon", 50.0, 200.0 - 10.0 - 40.0 - 100.0),
        ("late", 150.0, 1000.0 - 10.0 - 40.0 - 300.0),
    ]


def test_safety_counts_on_less_than_what_was_seen() -> None:
    jobs = [OpenJob("a", 90.0, 100.0)]
    assert places(jobs, Supply(rate=1.0, safety=0.9), 0.0)[0].laxity_s == 0.0
