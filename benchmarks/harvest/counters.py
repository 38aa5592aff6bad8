"""What a server has done so far, by its own metrics."""

from msgspec import Struct

from speciate.bench.server import get_text


class Counters(Struct, frozen=True):
    """Totals since the server started: seconds inside steps, and tokens written for batch work."""

    step_s: float
    batch_tokens: float


async def read_counters(url: str) -> Counters:
    """Raises URLError where no server answers."""
    lines = (await get_text(f"{url}/metrics")).splitlines()
    return Counters(
        _total(lines, "speciate:step_seconds_sum{"), _total(lines, "vllm:generation_tokens_total{", 'tier="batch"')
    )


def _total(lines: list[str], start: str, label: str = "") -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start) and label in line)
