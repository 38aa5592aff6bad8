"""Wrong usage is told in a line or two, with the right status, before anything slow is done."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest

import speciate

PACKAGE = Path(speciate.__file__).parent


async def run(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "speciate", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


USAGE = [
    (("sreve",), "did you mean serve?"),
    (("frobnicate",), "commands are serve"),
    (("serve", "--prot", "1"), "there is no argument '--prot'. Did you mean --port?"),
    (("serve", "--port", "99999"), "ports are 0 to 65535"),
    (("serve", "--kv-mib", "nan"), "nan is not a number above 0"),
    (("serve", "--threads", "0"), "0 is not a whole number above 0"),
    (("serve", "--weights", "int3"), "invalid choice: 'int3'"),
    (("bench", "--rates", "1"), "expected 3 arguments"),
    (("bench", "--duration", "-1"), "-1 is not a number above 0"),
    (("config", "a", "b"), "there is no argument 'b'"),
]


@pytest.mark.parametrize(("arguments", "told"), USAGE)
async def test_wrong_usage_is_status_2(arguments: tuple[str, ...], told: str) -> None:
    status, output = await run(*arguments)
    assert status == 2
    assert told in output
    assert len(output.splitlines()) == 2


FAILURES = [
    (("serve", "/nowhere"), "/nowhere is not a folder"),
    (("serve", str(PACKAGE)), "config.json does not exist"),
    (("serve", "--config", "/nowhere.yaml"), "Cannot read settings /nowhere.yaml"),
    (("serve", "--host", "999.1.1.1"), "Choose another --host"),
    (("models", "/nowhere"), "/nowhere is not a folder"),
    (("models", "--url", "nonsense"), "did not answer with models"),
    (("bench", "--rates", "0", "0", "0"), "nothing would be sent"),
    (("bench", "--traces", "/nowhere"), "/nowhere is not a folder"),
    (("bench", "--out", "/proc/x"), "Choose another folder"),
]


@pytest.mark.parametrize(("arguments", "told"), FAILURES)
async def test_what_cannot_be_done_is_status_1_and_one_line(arguments: tuple[str, ...], told: str) -> None:
    status, output = await run(*arguments)
    assert status == 1
    assert told in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("server: [", "is not YAML"),
        ("server: {port: 99999}", "<= 65535"),
        ("models: [{name: m, kv_mib: .nan}]", "models[0].kv_mib"),
        ("models: []", "no models"),
        ("segments: {realtime: {ttft_s: -1}}", "segments"),
        ("- a\n- b", "object"),
    ],
)
async def test_settings_that_cannot_be_used(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "speciate.yaml"
    path.write_text(text)
    status, output = await run("config", str(path))
    assert status == 1
    assert told in output
    assert str(path) in output
    assert "Traceback" not in output


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for command in ("bench", "models"):
        status, output = await run(command, "--url", f"http://127.0.0.1:{port}")
        assert status == 1
        assert "Connection refused" in output
        assert len(output.splitlines()) == 1


async def test_no_command_shows_them_all() -> None:
    status, output = await run()
    assert status == 0
    assert all(f"\n  {name} " in output for name in ("serve", "bench", "simulate", "models", "config"))
