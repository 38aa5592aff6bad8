"""What an operator may turn on the durable path."""

from msgspec import Struct

from speciate.batch.order import Credit


class BatchOptions(Struct, frozen=True):
    """Limits of files and batches, leases, tries."""

    max_lines: int = 50_000
    """Of one batch."""
    max_file_bytes: int = 200 * 1024 * 1024
    max_line_bytes: int = 8 * 1024 * 1024
    tenant_bytes: int = 20 * 1024**3
    """All files of one tenant."""
    max_open_batches: int = 1000
    """Of one tenant, not yet over."""
    input_expires_after_s: int | None = 30 * 86_400
    """Of files with purpose `batch` that name no expiry themselves; None keeps them."""
    lease_s: float = 30.0
    """A worker that is silent so long is dead; its lines run elsewhere. A worker with the only process of a folder is
    known to be dead at once."""
    max_attempts: int = 3
    """Runs of a line whose engine failed."""
    max_deaths: int = 5
    """Workers that may die with a line before it is given up. After the third it runs alone, so with fewer than four
    an innocent line could be given up for what ran beside it."""
    cancel_grace_s: float = 10.0
    """Running lines of a cancelled batch may finish so long."""
    credit: Credit = Credit()
    poll_s: float = 1.0
    """How often a worker looks for work that nobody announced."""
