"""Lines of output and error files, usage, ids, names, the clock, the pace."""

import json
from pathlib import Path

import pytest

from speciate.batch.clock import WallClock
from speciate.batch.files import FileShelf, batch_of_file, derived_file_id, new_batch_id, new_file_id, safe_filename
from speciate.batch.lines import LineAnswer, answered_line, line_id, usage_of
from speciate.batch.pace import UNKNOWN_RATE, Pace, Paces
from speciate.batch.records import TokenUsage
from speciate.core.errors import NotFound


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (
            {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3},
             "completion_tokens_details": {"reasoning_tokens": 2}},
            TokenUsage(5, 3, 7, 2),
        ),
        (
            {"input_tokens": 5, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 3},
             "output_tokens_details": {"reasoning_tokens": 2}},
            TokenUsage(5, 3, 7, 2),
        ),
        ({"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 3}, TokenUsage(8, 3, 7, 0)),
        ({"prompt_tokens": 5, "completion_tokens": None}, TokenUsage(5)),
        (None, TokenUsage()),
    ],
)  # fmt: skip
def test_usage_of_every_dialect(usage: object, counted: TokenUsage) -> None:
    assert usage_of(json.dumps({"usage": usage}).encode()) == counted


def test_usage_of_nonsense_is_none() -> None:
    assert usage_of(b"nonsense") == usage_of(b'{"usage": 7}') == TokenUsage()


def test_a_line_carries_the_body_untouched() -> None:
    body = b'{"n":1.000000000000000000001,"t":"\\u2028"}'
    line = answered_line("openai", "batch_ab", 3, 'i"d', LineAnswer(200, body, "r"))
    assert body.decode() in line
    assert json.loads(line)["custom_id"] == 'i"d'
    assert json.loads(line)["id"] == line_id("batch_ab", 3) == "batch_req_ab00000003"


def test_ids_of_a_batchs_files_lead_back_to_it() -> None:
    batch_id = new_batch_id()
    file_id = derived_file_id(batch_id, "ou")
    assert batch_of_file(file_id) == (batch_id.removeprefix("batch_"), "ou")
    assert derived_file_id(f"msg{batch_id}", "ou") == file_id
    assert all(batch_of_file(new_file_id()) is None for _ in range(1000))


def test_a_part_is_whole_or_not_there(tmp_path: Path) -> None:
    shelf = FileShelf(tmp_path)
    file_id = new_file_id()
    with shelf.begin(file_id) as part:
        part.write(b"half")
        with pytest.raises(NotFound):
            shelf.open(file_id)
    with pytest.raises(NotFound):
        shelf.open(file_id)
    for text in (b"one", b"two"):
        with shelf.begin(file_id) as part:
            part.write(text)
            part.keep()
        with shelf.open(file_id) as file:
            assert file.read() == text
    abandoned = shelf.begin(file_id)
    abandoned.__enter__()
    shelf.sweep(owns_folder=False)
    abandoned.write(b"still mine")
    shelf.sweep(owns_folder=True)
    assert not list((tmp_path / "tmp").iterdir())
    abandoned.drop()


@pytest.mark.parametrize(
    "name", ["../x", "file-../../../../../etc/pas", "", "file-", "/etc/passwd", "file-" + "a" * 25]
)
def test_no_name_leads_out_of_the_shelf(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        FileShelf(tmp_path).path(name)


def test_file_names_lose_paths_and_control_characters() -> None:
    assert safe_filename("a/b\\c\x00\x1b.txt") == "c.txt"
    assert safe_filename("a/") == "upload"


def test_the_clock_goes_on_when_the_machines_goes_back() -> None:
    wall, mono = [1000.0], [0.0]
    clock = WallClock(lambda: wall[0], lambda: mono[0])
    wall[0], mono[0] = 400.0, 5.0
    assert clock.now_s() == 1005.0
    wall[0], mono[0] = 410.0, 15.0
    assert clock.now_s() == 1015.0
    wall[0], mono[0] = 5000.0, 16.0
    assert clock.now_s() == 5000.0


def test_the_pace_is_of_busy_time_and_forgets() -> None:
    pace = Pace()
    assert pace.rate_per_s() == UNKNOWN_RATE
    for second in range(30):
        pace.add(100, float(second))
    assert pace.rate_per_s() == pytest.approx(100.0)
    pace.add(100, 3600.0)
    for second in range(3601, 3901):
        pace.add(10, float(second))
    assert pace.rate_per_s() == pytest.approx(10.0, rel=0.1)


def test_models_have_paces_of_their_own() -> None:
    paces = Paces()
    for second in range(10):
        paces.add("quick", 100, float(second))
        paces.add("slow", 1, float(second))
    assert paces.rate_per_s("quick") == pytest.approx(100.0)
    assert paces.rate_per_s("slow") == pytest.approx(1.0)
    assert not paces.is_known("other")
    assert paces.rate_per_s("other") == UNKNOWN_RATE
