"""Who gives way to whom inside a step: interactive decodes to real-time prompts, long prompts to several short ones."""

from speciate.core.segment import Segment, Slo, Tier

SLOW_VOICE = Segment("slow voice", Tier.REALTIME, Slo(ttft_s=0.2, tpot_s=0.1))


def chatting(d, num: int) -> list[int]:
    """That many interactive streams, each with a few tokens."""
    chats = [d.add("chat", 4, 200) for _ in range(num)]
    for _ in range(4):
        d.step()
    return chats


def test_interactive_decodes_step_aside_for_a_realtime_prompt_and_are_back_in_the_next_step(device, chunks) -> None:
    """With them the prompt would be late: 8 + 40 + 60 ms."""
    d = device(num_blocks=1000)
    chats = chatting(d, 40)
    voice = d.add("voice", 60, 4)
    first = d.step()
    assert voice in chunks(first)
    assert first.predicted_s < 0.1
    assert set(chats) - set(chunks(first))
    assert set(chats) <= set(chunks(d.step()))
    gaps = [b - a for chat in chats for a, b in zip(d.token_s[chat], d.token_s[chat][1:], strict=False)]
    assert max(gaps) <= 0.2


def test_interactive_decodes_stay_where_a_realtime_prompt_fits_beside_them(device, chunks) -> None:
    d = device(num_blocks=1000)
    chats = chatting(d, 8)
    voice = d.add("voice", 30, 4)
    assert {voice, *chats} <= set(chunks(d.step()))


def test_interactive_decodes_that_are_due_do_not_step_aside(device, chunks) -> None:
    hurried = Segment("hurried chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.06))
    d = device(num_blocks=1000)
    chats = [d.add(hurried, 4, 200) for _ in range(40)]
    for _ in range(4):
        d.step()
    d.add("voice", 60, 4)
    assert set(chats) <= set(chunks(d.step()))


def test_a_realtime_prompt_that_can_wait_makes_no_running_stream_late(device, chunks) -> None:
    """Its own promise allows two steps; in the first the running stream leaves no room beside the chats."""
    d = device(num_blocks=1000)
    first = d.add("voice", 4, 50)
    d.step()
    hurried = Segment("hurried chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.06))
    chats = [d.add(hurried, 1, 200) for _ in range(12)]
    for _ in range(3):
        d.step()
    waits = d.add(SLOW_VOICE, 28, 4)
    assert set(chunks(d.step())) == {first, *chats}
    d.finish(waits)
    gaps = [b - a for a, b in zip(d.token_s[first], d.token_s[first][1:], strict=False)]
    assert max(gaps) <= 0.05


def test_a_long_prompt_gives_way_to_another_if_only_one_can_be_in_time(device) -> None:
    """A stream holds steps to about 40 tokens: alone the long one takes 1.1 s, and the other 0.4 s more."""
    d = device(num_blocks=1000, max_step_tokens=64)
    d.add("voice", 4, 200)
    d.step()
    long, begins_s = d.add("chat", 900, 2), d.now_s
    while d.now_s < begins_s + 0.5:
        d.step()
    asked_s = d.now_s
    other = d.add("chat", 350, 2)
    d.finish(long, other)
    assert d.token_s[other][0] - asked_s <= 1.0
    assert d.token_s[long][0] > d.token_s[other][0]
