"""The processor's energy counters, as the kernel shows them in files."""

from pathlib import Path

import pytest

from speciate.telemetry.energy import find_rapl


def _zone(folder: Path, zone: str, name: str, energy_uj: int) -> Path:
    path = folder / zone
    path.mkdir(exist_ok=True)
    for file, text in (("name", name), ("energy_uj", str(energy_uj)), ("max_energy_range_uj", "1000000000")):
        (path / file).write_text(f"{text}\n")
    return path


def test_packages_are_added_up_and_parts_of_them_are_not(tmp_path: Path) -> None:
    _zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    _zone(tmp_path, "intel-rapl:1", "package-1", 0)
    _zone(tmp_path, "intel-rapl:0:0", "core", 1)
    _zone(tmp_path, "intel-rapl:2", "psys", 1)
    counter = find_rapl(tmp_path)
    assert counter is not None
    _zone(tmp_path, "intel-rapl:0", "package-0", 7_000_000)
    _zone(tmp_path, "intel-rapl:1", "package-1", 500_000)
    _zone(tmp_path, "intel-rapl:0:0", "core", 9_000_000)
    assert counter.read_j() == pytest.approx(2.5)
    assert counter.read_j() == pytest.approx(2.5)


def test_a_counter_that_wraps_round_goes_on(tmp_path: Path) -> None:
    _zone(tmp_path, "intel-rapl:0", "package-0", 999_000_000)
    counter = find_rapl(tmp_path)
    assert counter is not None
    _zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    assert counter.read_j() == pytest.approx(2.0)


def test_none_where_there_is_none_or_it_says_no_number(tmp_path: Path) -> None:
    assert find_rapl(tmp_path) is None
    _zone(tmp_path, "intel-rapl:0", "package-0", 0)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert find_rapl(tmp_path) is None
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("?")
    assert find_rapl(tmp_path) is None
