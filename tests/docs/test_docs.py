"""Docs must not lag the code: links resolve, settings and metrics are documented, decisions are numbered once."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (page.parent / t).exists()]
    assert not missing


def test_decision_numbers_are_unique() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers))


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    source = (ROOT / "src" / "speciate" / "telemetry" / "metrics.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"((?:vllm|speciate):[a-z_0-9]+)"', source))
    assert names
    assert sorted(name for name in names if name not in page) == []


def test_every_setting_is_documented_and_the_example_is_complete() -> None:
    from speciate.config import load_settings, settings_schema

    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    example = (ROOT / "speciate.yaml").read_text(encoding="utf-8")
    keys = {key for table in settings_schema()["$defs"].values() for key in table.get("properties", {})}
    assert sorted(key for key in keys if f"`{key}`" not in page) == []
    assert sorted(key for key in keys if not re.search(rf"\b{key}:", example)) == []
    load_settings(ROOT / "speciate.yaml")
