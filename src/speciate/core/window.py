"""What a durable job with a completion window still asks of the machine: work, and by when."""

from msgspec import Struct


class OpenJob(Struct, frozen=True):
    """A job that is neither finished nor expired. Times are absolute, on the caller's clock."""

    job_id: str
    work_s: float
    """Device-seconds left, lines that run included; at least 0."""
    deadline_s: float
    tenant: str = "default"
    num_lines: int = 0
    """Lines that could be claimed now."""
    line_tokens: float = 1.0
    """Weighted tokens (input 1, output 2) that one line is expected to cost its tenant."""


class Supply(Struct, frozen=True):
    """How fast work gets done."""

    rate: float
    """Device-seconds of work done a second, as observed; 1 is one whole device."""
    safety: float = 0.9
    """Share of the rate that promises may count on."""
    tail_s: float = 0.0
    """How long the last lines run on their own (the 95th percentile of a line): a deadline is treated as this much
    earlier."""

    @property
    def sure_rate(self) -> float:
        return self.rate * self.safety
