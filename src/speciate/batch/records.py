"""The words of the durable path: files, batches, their lines, and what came of each."""

from enum import IntEnum, StrEnum
from typing import Literal

from msgspec import Struct

Dialect = Literal["openai", "anthropic"]


class BatchStatus(StrEnum):
    """OpenAI's eight.

    validating -> in_progress -> finalizing -> completed | expired
        |              +-> cancelling -> cancelled
        +-> failed | cancelling
    """

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


TERMINAL = frozenset({BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})


class LineState(IntEnum):
    """Stored as a small number. Below COMPLETED a line is open; the order is used in SQL for that and nothing else."""

    SUSPECT = 0
    """Waits; a worker died while it ran."""
    PENDING = 1
    LEASED = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5
    EXPIRED = 6
    POISONED = 7
    """Given up after too many workers died with it."""


class FileRecord(Struct, frozen=True):
    """A complete file on the shelf. Times are Unix seconds."""

    id: str
    tenant: str
    purpose: str
    filename: str
    num_bytes: int
    created_s: int
    expires_s: int | None = None


class FileQuery(Struct, frozen=True):
    """A page of a tenant's files."""

    tenant: str
    after: str | None = None
    limit: int = 10_000
    purpose: str | None = None
    newest_first: bool = True


class BatchQuery(Struct, frozen=True):
    """A page of a tenant's batches, newest first: the first ones, or those next to another on its far side."""

    tenant: str
    dialect: Dialect
    limit: int
    after: str | None = None
    """Older than this one."""
    before: str | None = None
    """Newer than this one; at most one of the two is given."""


class LineCounts(Struct, frozen=True):
    """Of one batch. Lines in none of the last four are open."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0

    @property
    def open(self) -> int:
        return self.total - self.completed - self.unsuccessful

    @property
    def unsuccessful(self) -> int:
        return self.failed + self.cancelled + self.expired


class TokenUsage(Struct, frozen=True):
    """Tokens of completed lines; cached ones are part of the input's, reasoning ones of the output's."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


class BatchSpec(Struct, frozen=True):
    """What was asked for; never changes."""

    endpoint: str
    input_file_id: str
    window: str
    """As the caller wrote it."""
    window_s: float
    metadata: dict[str, str] | None = None
    output_expires_after_s: int | None = None
    dialect: Dialect = "openai"


class BatchError(Struct, frozen=True):
    """Why a file was not accepted; `line` counts from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchRecord(Struct, frozen=True):
    """A batch as the store has it."""

    key: int
    """The store's own number; grows with creation."""
    id: str
    tenant: str
    spec: BatchSpec
    status: BatchStatus
    created_s: float
    deadline_s: float
    """Unix seconds, wall clock."""
    model: str | None = None
    marks: dict[str, int] = {}
    """When each status was entered, Unix seconds."""
    errors: tuple[BatchError, ...] = ()
    counts: LineCounts = LineCounts()
    usage: TokenUsage = TokenUsage()
    idempotency_key: str | None = None
    is_tidy: bool = False
    """Its rows of lines and results are gone: everything is in its files."""


class BatchChange(Struct, frozen=True):
    """A step from one status to another, written only while the batch is in one of `sources`."""

    batch_key: int
    sources: tuple[BatchStatus, ...]
    target: BatchStatus
    now_s: float
    steward: str | None = None
    """Written only while this is its steward."""
    model: str | None = None
    total: int | None = None
    errors: tuple[BatchError, ...] | None = None


class NewLine(Struct, frozen=True, gc=False):
    """Where a line lies in the input file, and when its turn is: lines are claimed by rank."""

    index: int
    rank: int
    start: int
    num_bytes: int


class JobFacts(Struct, frozen=True):
    """What choosing between jobs needs of a batch in progress."""

    key: int
    id: str
    tenant: str
    model: str
    spec: BatchSpec
    created_s: float
    deadline_s: float
    num_open: int
    suspect_deaths: int
    """The fewest of a suspect that waits; 0 where there is none."""


class Want(Struct, frozen=True):
    """Lines of a batch to claim: those that wait, or suspects, those with the fewest deaths."""

    batch_key: int
    num_lines: int
    state: Literal[LineState.PENDING, LineState.SUSPECT] = LineState.PENDING


class Claim(Struct, frozen=True, gc=False):
    """A leased line. Whoever holds the fence may write its result, until the lease ends."""

    batch_key: int
    index: int
    start: int
    num_bytes: int
    attempt: int
    """1 for the first."""
    deaths: int
    fence: int


class LineResult(Struct, frozen=True, gc=False):
    """What came of a claim: a line of the output or error file, without its newline, and of the provenance file."""

    batch_key: int
    index: int
    fence: int
    is_success: bool
    line: str
    provenance: str
    usage: TokenUsage = TokenUsage()


class Reaped(Struct, frozen=True):
    """Lines whose worker died: how many wait again, and how many were given up."""

    num_suspects: int = 0
    num_poisoned: int = 0


class ClosedLine(Struct, frozen=True, array_like=True):
    """A line that is over, in the order of the columns of the query that reads it."""

    index: int
    state: int
    start: int
    num_bytes: int
    attempt: int
    deaths: int
    line: str | None
    """None where none was ever written: it was cancelled, expired or given up."""


class Page(Struct, frozen=True):
    """Some lines of a file in the making, each with its newline."""

    data: bytes
    next_index: int
    """Where the next page begins."""
    is_last: bool
    """Nothing more is there now."""
