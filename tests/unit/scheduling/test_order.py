"""The fair queue and what merges it with started prompts."""

from math import inf

from speciate.core.scheduler import TokenWork
from speciate.core.segment import Segment, Slo, Tier
from speciate.scheduling.order import FairQueue
from speciate.scheduling.sequence import Sequence
from speciate.scheduling.tenants import Tenants
from speciate.scheduling.waiting import Candidates, TierQueue

SEGMENT = Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0))


def key(seq: Sequence) -> float:
    return seq.deadline_s


def no_bucket(_: Sequence) -> float:
    return 0.0


class Rig:
    def __init__(self) -> None:
        self.tenants = Tenants()
        self.queue = FairQueue(key, self.tenants)
        self.num = 0

    def seq(self, deadline_s: float, tenant: str = "a") -> Sequence:
        self.num += 1
        work = TokenWork(self.num, (1,), SEGMENT, 0.0, 1, tenant)
        return Sequence(
            work, self.num, self.num, Tier.INTERACTIVE, self.tenants.join(tenant), 1.0, inf, inf, deadline_s, inf, 1
        )

    def push(self, deadline_s: float, tenant: str = "a") -> Sequence:
        seq = self.seq(deadline_s, tenant)
        self.queue.push(seq)
        return seq

    def pop_all(self) -> list[Sequence]:
        found = []
        while (seq := self.queue.pop(no_bucket)) is not None:
            found.append(seq)
        return found


def test_by_key_then_by_arrival() -> None:
    rig = Rig()
    late, early, tie = rig.push(3.0), rig.push(1.0, "b"), rig.push(1.0)
    assert rig.pop_all() == [early, tie, late]


def test_what_left_is_skipped() -> None:
    rig = Rig()
    first, second = rig.push(1.0), rig.push(2.0)
    first.stamp += 1
    assert rig.pop_all() == [second]


def test_putting_back_what_was_looked_at_does_not_grow_the_queue() -> None:
    rig = Rig()
    head, other = rig.push(1.0), rig.push(2.0)
    for _ in range(1000):
        seq = rig.queue.pop(no_bucket)
        assert seq is head
        rig.queue.push(seq)
    assert len(rig.queue._heads) <= 2
    assert rig.pop_all() == [head, other]


def test_a_tenant_that_returns_has_saved_up_nothing() -> None:
    tenants = Tenants()
    busy = tenants.join("busy")
    busy.served = 1000
    tenants.raise_level(busy)
    assert tenants.join("new").served == 1000


def test_tenants_that_come_once_are_forgotten() -> None:
    tenants = Tenants()
    for i in range(5000):
        tenant = tenants.join(f"t{i}")
        tenant.served += 100
        tenants.leave(tenant)
    assert len(tenants._tenants) <= 1100


def test_void_entries_are_dropped_in_time() -> None:
    rig = Rig()
    queue = TierQueue((key, key), rig.tenants)
    for _ in range(2000):
        seq = rig.seq(1.0)
        queue.add(seq)
        queue.remove(seq)
    assert queue.order(0)._num_entries <= 70
    queue.check([])


def test_started_prompts_and_the_queue_merge_by_key() -> None:
    rig = Rig()
    started = [rig.seq(2.0), rig.seq(0.5)]
    waiting = [rig.push(1.0), rig.push(3.0)]
    candidates = Candidates(started, key, rig.queue, no_bucket)
    assert candidates.next() is started[1]
    assert candidates.next() is waiting[0]
    candidates.skip_waiting()
    assert candidates.next() is started[0]
    assert candidates.next() is None
    candidates.close()
    assert rig.pop_all() == waiting
