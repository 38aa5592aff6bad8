"""Who is urgent, who shares, and that sharing never breaks a deadline that could be kept."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.core.window import OpenJob, Supply
from speciate.scheduling.claims import Claim, ClaimOptions, Line, claims, grouped, urgencies

SUPPLY = Supply(rate=1.0, safety=1.0)
OPTIONS = ClaimOptions(horizon_s=60.0)


def job(job_id: str, work_s: float, deadline_s: float, tenant: str = "t", num_lines: int = 10) -> OpenJob:
    return OpenJob(job_id, work_s, deadline_s, tenant, num_lines)


def take(*jobs: OpenJob, served: dict[str, float] | None = None, num_lines: int = 8) -> tuple[Claim, ...]:
    return claims(jobs, served or {}, num_lines, SUPPLY, OPTIONS, now_s=0.0)


def test_work_before_a_tight_deadline_is_urgent_too() -> None:
    ranked = urgencies(
        [job("d", 10, 9000), job("c", 700, 1040), job("a", 100, 1000), job("b", 200, 1010)], SUPPLY, OPTIONS, 0.0
    )
    assert [(u.job.job_id, u.laxity_s) for u in ranked] == [("a", 40), ("b", 40), ("c", 40), ("d", 7990)]
    assert [round(u.urgency, 3) for u in ranked] == [0.333, 0.333, 0.333, 0.0]


def test_urgency_reaches_one_when_no_laxity_is_left() -> None:
    assert urgencies([job("a", 100, 100)], SUPPLY, OPTIONS, 0.0)[0].urgency == 1.0
    assert urgencies([job("a", 100, 50)], SUPPLY, OPTIONS, 0.0)[0].urgency == 1.0


def test_without_any_rate_all_are_urgent_in_order_of_deadline() -> None:
    found = claims([job("b", 1, 90), job("a", 1, 20)], {}, 12, Supply(rate=0.0), OPTIONS, 0.0)
    assert found == (Claim("a", 10), Claim("b", 2))


def test_urgent_jobs_come_first_by_deadline() -> None:
    patient, tight = job("patient", 10, 1e6), job("tight", 100, 120, num_lines=5)
    assert take(patient, tight) == (Claim("tight", 5), Claim("patient", 3))


def test_patient_tenants_share_by_service() -> None:
    ours, theirs = job("ours", 10, 1e6, "we"), job("theirs", 10, 2e6, "they")
    assert take(ours, theirs) == (Claim("theirs", 4), Claim("ours", 4))
    assert take(ours, theirs, served={"we": 6.0, "they": 0.0}) == (Claim("theirs", 7), Claim("ours", 1))


def test_dear_lines_count_for_more() -> None:
    dear = msgspec.structs.replace(job("dear", 10, 1e6, "a"), line_tokens=3.0)
    assert take(dear, job("cheap", 10, 1e6, "b")) == (Claim("dear", 2), Claim("cheap", 6))


def test_a_newcomer_starts_level_with_the_least_served() -> None:
    served = {"old": 1000.0, "older": 1001.0}
    jobs = [job("1", 1, 1e6, "old"), job("2", 1, 1e6, "older"), job("3", 1, 1e6, "new")]
    assert {c.job_id: c.num_lines for c in take(*jobs, served=served, num_lines=8)} == {"1": 3, "2": 2, "3": 3}


def test_a_tenants_jobs_go_by_deadline_and_run_out() -> None:
    found = take(job("later", 1, 2e6), job("sooner", 1, 1e6, num_lines=3), num_lines=5)
    assert found == (Claim("sooner", 3), Claim("later", 2))


def test_nothing_is_claimed_beyond_what_is_there() -> None:
    assert take(job("a", 1, 1e6, num_lines=2), job("b", 100, 100, num_lines=0)) == (Claim("a", 2),)
    assert take() == ()
    assert take(job("a", 1, 1e6), num_lines=0) == ()


def test_lines_with_equal_prefixes_lie_side_by_side() -> None:
    lines = [Line(0, "x"), Line(1, "y"), Line(2, ""), Line(3, "x"), Line(4, ""), Line(5, "y"), Line(6, "z")]
    assert [line.index for line in grouped(lines)] == [0, 3, 1, 5, 2, 4, 6]
    assert [line.index for line in grouped(lines[::-1], warm=frozenset({"z", "y"}))] == [1, 5, 6, 0, 3, 2, 4]


@st.composite
def feasible_jobs(draw: st.DrawFn) -> list[OpenJob]:
    """Jobs of whole one-second lines whose deadlines can all be kept, sometimes barely."""
    jobs, work = [], 0
    deadline = 0
    for index in range(draw(st.integers(1, 6))):
        lines = draw(st.integers(1, 40))
        work += lines
        deadline = max(deadline, work) + draw(st.integers(0, 60))
        tenant = draw(st.sampled_from("abc"))
        jobs.append(OpenJob(f"{index}", float(lines), float(deadline), tenant, lines))
    return jobs


@settings(max_examples=200)
@given(jobs=feasible_jobs(), at_once=st.integers(1, 8), debt=st.dictionaries(st.sampled_from("abc"), st.floats(0, 99)))
def test_sharing_keeps_every_deadline_that_could_be_kept(
    jobs: list[OpenJob], at_once: int, debt: dict[str, float]
) -> None:
    """The machine does a line a second and claims `at_once` at a time, in the order of the claims."""
    options = ClaimOptions(horizon_s=float(at_once))
    open_jobs = {one.job_id: one for one in jobs}
    now = 0
    while open_jobs:
        found = claims(open_jobs.values(), debt, at_once, SUPPLY, options, float(now))
        assert 0 < sum(claim.num_lines for claim in found) <= at_once
        for claim in found:
            one = open_jobs[claim.job_id]
            now += claim.num_lines
            left = one.num_lines - claim.num_lines
            debt[one.tenant] = debt.get(one.tenant, 0.0) + claim.num_lines
            assert left >= 0
            open_jobs[one.job_id] = msgspec.structs.replace(one, num_lines=left, work_s=float(left))
            if left == 0:
                assert now <= one.deadline_s
                del open_jobs[one.job_id]


@given(jobs=feasible_jobs())
def test_urgency_never_rises_along_deadlines_and_never_falls_with_time(jobs: list[OpenJob]) -> None:
    early = [u.urgency for u in urgencies(jobs, SUPPLY, OPTIONS, 0.0)]
    late = [u.urgency for u in urgencies(jobs, SUPPLY, OPTIONS, 20.0)]
    assert early == sorted(early, reverse=True)
    assert all(a <= b for a, b in zip(early, late, strict=True))
