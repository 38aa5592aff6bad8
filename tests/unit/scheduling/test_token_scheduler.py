"""Each rule of the token scheduler, alone."""

import pytest

from speciate.core.engine import StepSizes
from speciate.core.errors import InvalidRequest, InvariantError
from speciate.core.scheduler import StepOutcome
from speciate.core.segment import Segment, Slo, Tier
from speciate.scheduling.options import Reservation

SAME = tuple(range(64))


def test_batch_alone_fills_the_step(device, chunks) -> None:
    d = device()
    first, second = d.add("docs", 400, 4), d.add("docs", 400, 4)
    assert chunks(d.plan()) == {first: 400, second: 112}


def test_a_realtime_prompt_is_never_split(device, chunks) -> None:
    d = device()
    d.add("docs", 500, 50)
    for _ in range(3):
        d.step()
    voice = d.add("voice", 60, 4)
    assert chunks(d.plan())[voice] == 60


def test_a_realtime_prompt_longer_than_a_step_is_split(device, chunks) -> None:
    d = device(max_step_tokens=64)
    voice = d.add("voice", 100, 2)
    assert chunks(d.step()) == {voice: 64}
    assert chunks(d.step()) == {voice: 36}


def test_the_arrival_guard_shortens_batch_steps_while_armed(device, chunks) -> None:
    d = device(arm_s=10.0)
    voice = d.add("voice", 20, 2)
    d.finish(voice)
    d.add("docs", 1000, 4)
    guarded = d.step()
    assert guarded.predicted_s < 0.1 - 0.028
    d.now_s += 11.0
    assert d.step().predicted_s > 0.2


def test_a_reservation_keeps_the_guard_up(device) -> None:
    d = device(reservations=(Reservation(ttft_s=0.1, prompt_tokens=20),))
    d.add("docs", 1000, 4)
    assert d.step().predicted_s < 0.1 - 0.028


def test_a_prompt_is_cut_so_that_padding_keeps_to_the_limit_too(device) -> None:
    d = device(reservations=(Reservation(ttft_s=0.1, prompt_tokens=20),), step_sizes=StepSizes(widest=40))
    d.add("docs", 1000, 4)
    assert 0.008 + 0.017 < d.plan().predicted_s < 0.1 - 0.028


def test_running_chat_bounds_the_step_by_its_slack(device) -> None:
    d = device(batch_delay=100.0)
    chat = d.add("chat", 16, 50)
    d.step()
    d.add("docs", 1000, 4)
    assert 0.05 < d.step().predicted_s <= 0.2
    d.finish(chat)
    gaps = [b - a for a, b in zip(d.token_s[chat], d.token_s[chat][1:], strict=False)]
    assert max(gaps) <= 0.2


def test_batch_decodes_pause_in_place_and_keep_their_blocks(device, chunks) -> None:
    d = device()
    docs = [d.add("docs", 16, 400) for _ in range(40)]
    for _ in range(4):
        d.step()
    held = d.scheduler.load(d.now_s).free_blocks
    voice = d.add("voice", 8, 10)
    d.step()
    decision = d.plan()
    running = chunks(decision)
    assert voice in running
    paused = set(docs) - set(running)
    assert paused
    assert decision.evicted == ()
    assert d.scheduler.load(d.now_s).free_blocks <= held
    d.commit(decision)
    assert paused & set(chunks(d.plan())), "the longest idle go first"


def test_batch_decodes_never_pause_without_the_option(device, chunks) -> None:
    d = device(pause_batch=False)
    docs = [d.add("docs", 16, 400) for _ in range(40)]
    for _ in range(4):
        d.step()
    d.add("voice", 8, 10)
    d.step()
    assert set(docs) <= set(chunks(d.plan()))


def test_interactive_prompts_go_by_deadline_and_batch_gets_the_rest(device, chunks) -> None:
    d = device(batch_delay=100.0)
    docs = d.add("docs", 400, 2)
    late = d.add("chat", 40, 2, arrival_s=d.now_s)
    early = d.add("chat", 40, 2, arrival_s=d.now_s - 0.5)
    assert list(chunks(d.plan())) == [early, late, docs]


def test_a_hopeless_prompt_is_relegated_once_if_its_caller_agrees(device) -> None:
    d = device()
    d.add("docs", 400, 2)
    agrees = d.add("chat", 40, 2, arrival_s=d.now_s - 2.0, may_downgrade=True)
    refuses = d.add("chat", 40, 2, arrival_s=d.now_s - 2.0)
    decision = d.step()
    assert decision.relegated == ((agrees, Tier.BATCH),)
    assert d.step().relegated == ()
    d.finish(agrees, refuses)


def test_a_late_prompt_lets_those_in_time_go_first_but_keeps_its_tier(device, chunks) -> None:
    d = device(max_step_tokens=40)
    late = d.add("chat", 40, 2, arrival_s=d.now_s - 2.0)
    in_time = d.add("chat", 40, 2)
    decision = d.step()
    assert list(chunks(decision)) == [in_time]
    assert decision.relegated == ()
    d.finish(late)


@pytest.mark.parametrize("segment", ["voice", "chat"])
@pytest.mark.parametrize("may_downgrade", [True, False])
def test_any_number_of_late_prompts_does_not_idle_the_device(device, segment: str, may_downgrade: bool) -> None:
    d = device()
    for _ in range(50):
        d.add(segment, 40, 2, arrival_s=d.now_s - 5.0, may_downgrade=may_downgrade)
    assert d.plan().plan is not None


def test_hopeless_realtime_work_becomes_interactive(device) -> None:
    d = device()
    voice = d.add("voice", 200, 2, may_downgrade=True)
    assert d.step().relegated == ((voice, Tier.INTERACTIVE),)


def test_expired_work_is_dropped_and_its_seconds_counted(device) -> None:
    d = device()
    waiting = d.add("docs", 900, 2, deadline_s=d.now_s + 0.1)
    d.step()
    decision = d.plan()
    assert decision.expired == (waiting,)
    assert decision.plan is None
    load = d.scheduler.load(d.now_s)
    assert load.wasted_s > 0.4
    assert load.free_blocks == load.total_blocks


def test_an_idle_plan_names_no_time_to_wake(device) -> None:
    decision = device().plan()
    assert (decision.plan, decision.wake_s) == (None, None)


def test_abort_between_plan_and_commit_frees_at_commit(device) -> None:
    d = device()
    chat = d.add("chat", 64, 5)
    decision = d.plan()
    free = d.scheduler.load(d.now_s).free_blocks
    d.scheduler.abort(chat, d.now_s)
    d.scheduler.check()
    assert d.scheduler.load(d.now_s).free_blocks == free
    d.commit(decision)
    load = d.scheduler.load(d.now_s)
    assert load.free_blocks == load.total_blocks
    assert load.wasted_s > 0


def test_abort_of_unknown_ids_is_ignored(device) -> None:
    device().scheduler.abort(12345, 0.0)


def test_realtime_evicts_batch_but_chat_does_not_evict_chat(device) -> None:
    d = device(num_blocks=10, arm_s=0.0)
    docs = d.add("docs", 128, 8)
    d.step()
    voice = d.add("voice", 64, 2)
    assert d.plan().evicted == (docs,)
    d = device(num_blocks=10, arm_s=0.0)
    d.add("chat", 128, 8)
    d.step()
    chat = d.add("chat", 64, 2)
    decision = d.plan()
    assert decision.evicted == ()
    assert chat not in {s.seq_id for s in decision.plan.sequences}
    assert voice


def test_what_is_not_preemptible_is_not_evicted(device, chunks) -> None:
    kept = Segment("kept", Tier.BATCH, Slo(), preemptible=False)
    d = device(num_blocks=10)
    docs = d.add(kept, 128, 8)
    d.step()
    voice = d.add("voice", 64, 2)
    decision = d.step()
    assert decision.evicted == ()
    assert voice not in chunks(decision)
    d.finish(docs, voice)


def test_a_realtime_prompt_under_way_does_not_wait_behind_one_without_room(device) -> None:
    d = device(num_blocks=4, max_step_tokens=16)
    first = d.add("voice", 40, 2)
    d.step()
    sooner = d.add("voice", 40, 2, arrival_s=d.now_s - 1.0)
    d.finish(first, sooner)


def test_equals_that_outgrow_memory_all_finish(device) -> None:
    d = device(num_blocks=10)
    chats = [d.add("chat", 30, 100) for _ in range(4)]
    d.finish(*chats)
    load = d.scheduler.load(d.now_s)
    assert load.free_blocks == load.total_blocks


def test_recompute_is_counted_as_waste_and_keeps_the_outputs(device, chunks) -> None:
    d = device(num_blocks=10, prefix_cache=False, arm_s=0.0)
    docs = d.add("docs", 100, 40)
    for _ in range(10):
        d.step()
    voice = d.add("voice", 100, 2)
    assert d.step().evicted == (docs,)
    d.finish(voice)
    num_outputs = len(d.token_s[docs])
    decision = d.step()
    assert chunks(decision)[docs] == 100 + num_outputs
    assert d.scheduler.load(d.now_s).wasted_s > 0.05
    d.finish(docs)


def test_a_shared_prefix_is_computed_once(device, chunks) -> None:
    d = device()
    d.finish(d.add("chat", 64, 2, prompt_tokens=SAME))
    again = d.add("chat", 64, 2, prompt_tokens=SAME)
    decision = d.plan()
    assert decision.started[0].cached_tokens == 48, "the last block is computed anew: its last token must be"
    assert chunks(decision)[again] == 16
    assert d.scheduler.load(d.now_s).prefix_hit_tokens == 48


def test_another_salt_shares_nothing(device, chunks) -> None:
    d = device()
    d.finish(d.add("chat", 64, 2, prompt_tokens=SAME))
    other = d.add("chat", 64, 2, prompt_tokens=SAME, cache_salt="adapter")
    assert chunks(d.plan())[other] == 64


def test_choices_wait_for_the_prefix_that_is_being_computed(device, chunks) -> None:
    d = device()
    choices = [d.add("chat", 64, 3, prompt_tokens=SAME) for _ in range(4)]
    assert chunks(d.step()) == {choices[0]: 64}
    assert chunks(d.step()) == {choices[0]: 1, **dict.fromkeys(choices[1:], 16)}


def test_the_answer_of_a_turn_is_reused_by_the_next(device) -> None:
    d = device()
    d.finish(d.add("chat", 64, 40, prompt_tokens=SAME))
    d.add("chat", 1, 2, prompt_tokens=SAME + (7,) * 39 + (1, 2, 3))
    assert d.plan().started[0].cached_tokens == 96


def test_the_less_served_tenant_goes_first_inside_a_bucket(device, chunks) -> None:
    d = device(max_step_tokens=40)
    d.finish(d.add("chat", 40, 20, tenant="greedy"))
    greedy = d.add("chat", 40, 2, tenant="greedy")
    modest = d.add("chat", 40, 2, tenant="modest", arrival_s=d.now_s + 0.1)
    assert greedy
    assert list(chunks(d.plan())) == [modest]


def test_fairness_does_not_cross_buckets(device, chunks) -> None:
    d = device(max_step_tokens=40)
    d.finish(d.add("chat", 40, 20, tenant="greedy"))
    greedy = d.add("chat", 40, 2, tenant="greedy")
    d.add("chat", 40, 2, tenant="modest", arrival_s=d.now_s + 0.3)
    assert list(chunks(d.plan())) == [greedy]


@pytest.mark.parametrize(("delay", "most_s"), [(0.25, 0.06), (100.0, 0.53)])
def test_batch_work_spares_who_arrives(device, delay: float, most_s: float) -> None:
    """A chat of 200 tokens takes 208 ms of its own: batch steps stay under a quarter of that, or take what is given."""
    d = device(batch_delay=delay, num_blocks=1000)
    d.finish(d.add("chat", 200, 1))
    for _ in range(20):
        d.add("docs", 200, 4)
    longest_s = max(d.step().predicted_s for _ in range(10))
    assert 0.6 * most_s <= longest_s <= most_s + 1e-9


def test_urgent_batch_work_spares_nobody(device) -> None:
    d = device(num_blocks=1000)
    d.finish(d.add("chat", 100, 1))
    d.add("docs", 500, 4, deadline_s=d.now_s + 0.52)
    assert d.step().predicted_s > 0.1


@pytest.mark.parametrize(("floor", "is_done"), [(0.1, True), (0.0, False)])
def test_urgent_batch_work_gets_a_floor(device, floor: float, is_done: bool) -> None:
    d = device(arm_s=0.0, batch_floor=floor, num_blocks=1000)
    chats = [d.add(Segment("tight", Tier.INTERACTIVE, Slo(tpot_s=0.039)), 1, 300) for _ in range(30)]
    while len(d.token_s.get(chats[-1], ())) < 2:
        d.step()
    docs = d.add("docs", 1, 4, deadline_s=d.now_s + 0.6)
    expired = [seq_id for _ in range(20) for seq_id in d.step().expired]
    assert (expired == []) is is_done
    assert (len(d.token_s.get(docs, ())) == 4) is is_done


def test_prompts_that_can_never_fit_are_refused(device) -> None:
    d = device(num_blocks=4)
    with pytest.raises(InvalidRequest, match="5 KV blocks, the device has 4"):
        d.add("chat", 60, 6)
    with pytest.raises(InvalidRequest, match="exceed the context of 1600"):
        d.add("chat", 1599, 2)
    with pytest.raises(InvalidRequest, match="both must be at least 1"):
        d.add("chat", 0, 2)
    with pytest.raises(InvalidRequest, match="is in use"):
        d.add("chat", 4, 2, seq_id=d.add("chat", 4, 2))


@pytest.mark.parametrize(("prompt", "outputs"), [(1, 1), (1, 5), (1599, 1), (1584, 16)])
def test_the_ends_of_the_context(device, prompt: int, outputs: int) -> None:
    d = device()
    d.finish(d.add("chat", prompt, outputs))


def test_plan_twice_and_commit_of_nothing_are_bugs(device) -> None:
    d = device()
    d.add("chat", 4, 2)
    decision = d.plan()
    with pytest.raises(InvariantError, match="plan called twice"):
        d.plan()
    d.commit(decision)
    with pytest.raises(InvariantError, match="not in flight"):
        d.commit(decision)


def test_a_sampling_sequence_without_a_token_did_not_advance(device, chunks) -> None:
    d = device()
    chat = d.add("chat", 32, 2)
    decision = d.plan()
    d.scheduler.commit(StepOutcome(decision.plan, 0.04, ()), d.now_s)
    assert chunks(d.plan()) == {chat: 32}


def test_load_tells_what_waits_runs_and_is_promised(device) -> None:
    d = device()
    d.finish(d.add("chat", 16, 2))
    d.add("chat", 16, 30)
    d.step()
    d.add("docs", 200, 4)
    load = d.scheduler.load(d.now_s)
    assert load.tiers[Tier.INTERACTIVE].num_running == 1
    assert load.tiers[Tier.INTERACTIVE].demand == pytest.approx(0.001 / 0.1, rel=0.2)
    assert load.tiers[Tier.BATCH].waiting_tokens == 200
    assert load.tiers[Tier.BATCH].backlog_s == pytest.approx(0.208, rel=0.2)
    assert load.margin >= 1.05
