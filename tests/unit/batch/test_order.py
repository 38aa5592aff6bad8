"""Which job's lines run next: urgency, fairness, suspects, credit."""

from speciate.batch.order import Credit, choose, suspects_first
from speciate.batch.records import BatchSpec, JobFacts, LineState, Want

SPEC = BatchSpec("/v1/chat/completions", "file-in", "24h", 86_400.0)


def _ten_a_second(model: str) -> float:
    return 10.0


def _job(
    key: int, tenant: str = "t", *, deadline_s: float = 86_400.0, num_open: int = 100, deaths: int = 0
) -> JobFacts:
    return JobFacts(key, f"batch_{key}", tenant, "m", SPEC, 0.0, deadline_s, num_open, deaths)


def test_the_least_served_tenant_comes_first() -> None:
    wants = choose([_job(1, "a"), _job(2, "b")], {"a": 10.0, "b": 5.0}, {}, _ten_a_second, 50, 0.0)
    assert {want.batch_key: want.num_lines for want in wants} == {2: 27, 1: 23}


def test_what_one_job_leaves_goes_to_the_next() -> None:
    wants = choose([_job(1, "a", num_open=30), _job(2, "b")], {}, {1: 10}, _ten_a_second, 50, 0.0)
    assert wants == (Want(1, 20), Want(2, 30))


def test_a_job_short_of_time_goes_before_fairness() -> None:
    late = _job(1, "greedy", deadline_s=15.0)
    assert choose([_job(2, "b"), late], {"greedy": 1e6}, {}, _ten_a_second, 50, 0.0) == (Want(1, 50),)


def test_equal_tenants_go_by_deadline() -> None:
    jobs = [_job(1, deadline_s=90_000.0), _job(2, deadline_s=50_000.0)]
    assert [want.batch_key for want in choose(jobs, {}, {}, _ten_a_second, 150, 0.0)] == [2, 1]


def test_suspects_run_in_ever_smaller_groups() -> None:
    groups = [suspects_first([_job(1), _job(2, deaths=deaths)]) for deaths in (1, 2, 3, 4)]
    assert groups == [Want(2, size, LineState.SUSPECT) for size in (16, 4, 1, 1)]
    assert suspects_first([_job(1)]) is None
    assert suspects_first([]) is None


def test_those_with_fewest_deaths_are_cleared_first() -> None:
    want = suspects_first([_job(1, deaths=3), _job(2, deaths=1)])
    assert want is not None
    assert want.batch_key == 2


def test_credit_follows_what_the_engine_takes() -> None:
    credit = Credit(least=16, most=512, ahead=32)
    assert [credit.allowed(running) for running in (0, 16, 100, 400)] == [32, 64, 232, 512]
    assert Credit(least=4, most=4).allowed(100) == 4
