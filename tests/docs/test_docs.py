"""Docs must not lag the code: links resolve, settings and metrics are documented, decisions are numbered once."""

import importlib.util
import re
from pathlib import Path

import pytest

from speciate.config import Settings, load_settings, settings_schema

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
assert _spec is not None
assert _spec.loader is not None
_generator = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_generator)
GENERATED = _generator.PAGES
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


def test_every_error_of_a_batch_file_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    batch = ROOT / "src" / "speciate" / "batch"
    source = "".join((batch / name).read_text(encoding="utf-8") for name in ("validate.py", "steward.py", "lines.py"))
    codes = set(re.findall(r'(?:_fail\(|BatchError\(|return )"([a-z_]+)",', source))
    assert {"duplicate_custom_id", "file_not_found", "worker_died"} <= codes
    assert sorted(code for code in codes if f"`{code}`" not in page) == []


def test_generated_pages_are_up_to_date() -> None:
    for name, page in GENERATED.items():
        assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == page(), (
            f"docs/reference/{name} lags the code; run python docs/generate_reference.py"
        )


def test_the_example_settings_name_every_key_and_are_the_defaults() -> None:
    example = (ROOT / "speciate.yaml").read_text(encoding="utf-8")
    keys = {key for table in settings_schema()["$defs"].values() for key in table.get("properties", {})}
    assert sorted(key for key in keys if not re.search(rf"\b{key}:", example)) == []
    assert load_settings(ROOT / "speciate.yaml") == Settings()


def test_every_langchain_test_that_is_expected_to_fail_is_listed_with_its_reason() -> None:
    page = (ROOT / "docs" / "reference" / "clients.md").read_text(encoding="utf-8")
    suite = (ROOT / "tests" / "api" / "test_langchain.py").read_text(encoding="utf-8")
    expected = re.findall(r"@pytest\.mark\.xfail\(.*?def (test_\w+)", suite, re.DOTALL)
    listed = re.findall(r"^\| `(test_\w+)` \|", page, re.MULTILINE)
    assert expected
    assert sorted(listed) == sorted(expected)
