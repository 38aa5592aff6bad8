"""The command line: `speciate serve | batch | image | bench | simulate | models | config`.

Each command is a module, imported when it is used, so that `speciate serve` needs no benchmark client and `--help` is
instant.
"""

import argparse
import difflib
import importlib
import signal
import sys
from collections.abc import Sequence
from types import ModuleType

from speciate import __version__
from speciate.cli.parser import Parser
from speciate.core.errors import SpeciateError

COMMANDS = {
    "serve": "serve models behind one OpenAI-compatible endpoint",
    "batch": "file, watch and run durable jobs of many requests",
    "image": "draw a picture to a file, no server needed",
    "bench": "load a server with three tiers and report the promises kept",
    "simulate": "run the production decisions over a trace under a virtual clock",
    "models": "show what a model folder holds, or what a server serves",
    "config": "check a settings file, print the defaults or their JSON Schema",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the process's exit status: 0 done, 1 failed, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        _parser().parse_args(given or ["--help"])
        return 2
    try:
        return int(_import_command(given[0]).main(given[1:]))
    except SpeciateError as error:
        print(f"speciate {given[0]}: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _import_command(name: str) -> ModuleType:
    """Ctrl-C ends the process at once meanwhile: some libraries, when interrupted at import, tell it as a failure."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return importlib.import_module(f"speciate.cli.{name}")
    finally:
        signal.signal(signal.SIGINT, before)


def _parser() -> Parser:
    listed = "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="speciate", usage="speciate COMMAND [OPTIONS]", description="One inference endpoint, every promise kept.",
        epilog=f"commands:\n{listed}\n\n`speciate COMMAND --help` tells more.",
    )  # fmt: skip
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="version", version=f"speciate {__version__}")
    parser.add_argument("command", type=_command, metavar="COMMAND", help="see below")
    return parser


def _command(text: str) -> str:
    nearest = difflib.get_close_matches(text, COMMANDS, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"commands are {', '.join(COMMANDS)}"
    raise argparse.ArgumentTypeError(f"{text!r} is unknown; {hint}")
