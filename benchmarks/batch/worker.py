"""A worker process on Postgres: `python -m benchmarks.batch.worker FOLDER`, URL in SPECIATE_BATCH_POSTGRES."""

import asyncio
import os
import sys
from pathlib import Path

from benchmarks.batch.stand import open_stand, waiting_ports

AT_ONCE = 64


async def main(folder: Path) -> None:
    async with open_stand(folder, waiting_ports(), os.environ["SPECIATE_BATCH_POSTGRES"], AT_ONCE):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
