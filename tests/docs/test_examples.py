"""What a newcomer copies out of the README and the docs: Python runs against a real server, command lines are
understood, settings load.
"""

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from speciate.config import parse_settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(*languages: str) -> list[tuple[str, str]]:
    """(page, text) of fenced blocks."""
    return [
        (str(page.relative_to(ROOT)), text)
        for page in PAGES
        for language, text in FENCE.findall(page.read_text(encoding="utf-8"))
        if language in languages
    ]


def command_lines() -> list[tuple[str, str]]:
    return [
        (page, line.partition("#")[0].strip())
        for page, text in blocks("", "sh", "bash", "console")
        for line in text.splitlines()
        if line.startswith("speciate ")
    ]


@pytest.mark.parametrize(
    ("page", "text"),
    [b for b in blocks("python") if "base_url" in b[1] and "batches" not in b[1] and "images" not in b[1]],
)
def test_python_examples_run(pocket_server, page: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On the port of the test's server, which has no batches and no images: those examples have their own tests."""
    exec(compile(text.replace("http://127.0.0.1:8000", pocket_server.url), page, "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_readme_shows_how_to_ask() -> None:
    assert any(page == "README.md" for page, _ in blocks("python"))


@functools.cache
def help_of(*command: str) -> str:
    shown = subprocess.run(
        [sys.executable, "-m", "speciate", *command, "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_command_lines_use_options_that_exist(page: str, line: str) -> None:
    """Each command's own help lists every option that the page uses."""
    words = shlex.split(line)
    is_nested = (
        len(words) > 2 and re.fullmatch(r"[a-z]+", words[2]) is not None and words[1] in ("batch", "bench", "simulate")
    )
    command = words[1:3] if is_nested else words[1:2]
    shown = help_of(*command)
    for option in (w.partition("=")[0] for w in words if w.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", shown), f"{page}: {line}: no {option}"


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_settings_examples_load(page: str, text: str) -> None:
    tree = yaml.safe_load(text)
    if isinstance(tree, dict) and set(tree) <= {
        "server",
        "models",
        "segments",
        "scheduler",
        "admission",
        "telemetry",
        "batch",
    }:
        parse_settings(tree, page)
