"""`speciate batch submit | status | watch | cancel | output | estimate` with a server, `batch run FILE` without one."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from speciate.cli.batch_client import BatchClient
from speciate.cli.batch_markets import outlook_text, print_estimate
from speciate.cli.batch_progress import BatchProgress
from speciate.cli.batch_run import run_file
from speciate.config import api_keys
from speciate.core.errors import InvalidRequest

OVER = frozenset({"completed", "failed", "expired", "cancelled"})
POLL_S = 1.0
URL_VARIABLE = "SPECIATE_URL"


def main(arguments: Sequence[str]) -> int:
    """Status 0 when it did what was asked; 1 when a batch that was waited for did not complete, or lines failed."""
    given = _parser().parse_args(arguments)
    action: Callable[[argparse.Namespace], int] = given.action
    return action(given)


def _submit(given: argparse.Namespace) -> int:
    if given.dry_run:
        return _estimate(given)
    client = _client(given)
    batch = client.create(
        input_file_id=client.upload(given.file),
        endpoint=given.endpoint or _endpoint_of(given.file),
        completion_window=given.window,
        metadata=dict(pair.split("=", 1) for pair in given.metadata) or None,
    )
    print(batch["id"])
    return _follow(client, batch, given.output) if given.watch or given.output else 0


def _status(given: argparse.Namespace) -> int:
    client = _client(given)
    batches = [client.retrieve(given.batch)] if given.batch else client.list_batches(20)
    if given.json:
        print(json.dumps(batches, indent=2))
        return 0
    table = Table("batch", "status", "lines", "done", "failed", "model", "window ends")
    for batch in batches:
        counts = batch["request_counts"]
        ends = time.strftime("%Y-%m-%d %H:%M", time.localtime(batch["expires_at"]))
        table.add_row(
            batch["id"], batch["status"], f"{counts['total']:,}", f"{counts['completed']:,}",
            f"{counts['failed']:,}", batch["model"] or "", ends,
        )  # fmt: skip
    Console().print(table)
    for batch in batches if given.batch else []:
        _print_errors(batch)
        if batch.get("outlook"):
            print(outlook_text(batch["outlook"]))
    return 0


def _watch(given: argparse.Namespace) -> int:
    client = _client(given)
    return _follow(client, client.retrieve(given.batch), None)


def _cancel(given: argparse.Namespace) -> int:
    print(_client(given).cancel(given.batch)["status"])
    return 0


def _output(given: argparse.Namespace) -> int:
    """What is there: of a batch that runs, the complete prefix."""
    client = _client(given)
    batch = client.retrieve(given.batch)
    file_id = batch["error_file_id" if given.errors else "output_file_id"]
    if file_id is None:
        raise InvalidRequest(f"{given.batch} is {batch['status']} and has no such file.")
    if given.output is not None:
        client.save(file_id, given.output)
        return 0
    for block in client.blocks(file_id):
        sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    return 0


def _estimate(given: argparse.Namespace) -> int:
    client = _client(given)
    file_id = client.upload(given.file)
    try:
        found = client.estimate(input_file_id=file_id, completion_window=given.window)
    finally:
        client.delete_file(file_id)
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        print_estimate(found, given.window)
    return 0 if found["is_feasible"] is not False else 1


def _run(given: argparse.Namespace) -> int:
    return run_file(given)


def _follow(client: BatchClient, batch: dict[str, Any], output: Path | None) -> int:
    """A progress bar until the batch is over; then its output where it was asked for."""
    with BatchProgress() as progress:
        while True:
            counts = batch["request_counts"]
            progress.show(batch["status"], counts["total"], counts["completed"], counts["failed"])
            if batch["status"] in OVER:
                break
            time.sleep(POLL_S)
            batch = client.retrieve(batch["id"])
    _print_errors(batch)
    if output is not None and batch["output_file_id"] is not None:
        client.save(batch["output_file_id"], output)
    return 0 if batch["status"] == "completed" and not batch["request_counts"]["failed"] else 1


def _print_errors(batch: dict[str, Any]) -> None:
    for error in (batch["errors"] or {"data": []})["data"]:
        place = f"line {error['line']}: " if error["line"] is not None else ""
        print(f"{place}{error['code']}: {error['message']}", file=sys.stderr)


def _endpoint_of(path: Path) -> str:
    """What the first line asks for. Raises InvalidRequest where it says nothing."""
    try:
        with path.open("rb") as file:
            return str(json.loads(file.readline())["url"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"The first line of {path} names no url ({error}); give --endpoint.") from error


def _client(given: argparse.Namespace) -> BatchClient:
    return BatchClient(given.url, next(iter(api_keys()), None))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="speciate batch", description="Durable jobs of many requests.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    remote = argparse.ArgumentParser(add_help=False)
    remote.add_argument("--url", default=os.environ.get(URL_VARIABLE, "http://127.0.0.1:8000"), help="the server (default $SPECIATE_URL or http://127.0.0.1:8000)")  # fmt: skip # noqa: E501

    submit = _command(commands, "submit", _submit, "upload a JSONL file and make a batch of it", remote)
    submit.add_argument("file", type=Path)
    submit.add_argument("--endpoint", help="default: what the first line asks for")
    submit.add_argument("--window", default="24h", help="24h (default), 2h, 90m, 7d or an ISO 8601 duration")
    submit.add_argument("--metadata", nargs="*", default=[], metavar="KEY=VALUE")
    submit.add_argument("--dry-run", action="store_true", help="only say what it would cost and when it would end")
    submit.add_argument("--json", action="store_true", help="with --dry-run: as JSON")
    submit.add_argument("--watch", action="store_true", help="wait for its end")
    submit.add_argument("-o", "--output", type=Path, help="wait for its end and save its output here")

    status = _command(commands, "status", _status, "one batch, or the latest twenty", remote)
    status.add_argument("batch", nargs="?")
    status.add_argument("--json", action="store_true")
    _command(commands, "watch", _watch, "a progress bar until a batch is over", remote).add_argument("batch")
    _command(commands, "cancel", _cancel, "cancel a batch; what is done is kept", remote).add_argument("batch")

    output = _command(commands, "output", _output, "the output, of a running batch what is there", remote)
    output.add_argument("batch")
    output.add_argument("--errors", action="store_true", help="the error file instead")
    output.add_argument("-o", "--output", type=Path, help="save it here (default: print it)")

    estimate = _command(commands, "estimate", _estimate, "what a file would cost, when it would end and why", remote)
    estimate.add_argument("file", type=Path)
    estimate.add_argument("--window", default="24h")
    estimate.add_argument("--json", action="store_true")

    run = _command(commands, "run", _run, "run a file here, with no server; started again it goes on", None)
    run.add_argument("file", type=Path)
    run.add_argument("--model", default="pocket", help="a model folder (default: the pocket model)")
    run.add_argument("-o", "--output", type=Path, help="default: FILE with .out.jsonl; errors go beside it")
    run.add_argument("-c", "--config", type=Path, help="a speciate.yaml")
    run.add_argument("--weights", choices=["f32", "f16", "bf16", "int8", "int4"])
    run.add_argument("--kv-mib", type=float)
    run.add_argument("--threads", type=int)
    return parser


def _command(
    commands: Any, name: str, action: Callable[[argparse.Namespace], int], text: str, parent: Any
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, parents=[parent] if parent else []
    )
    made.set_defaults(action=action)
    return made
