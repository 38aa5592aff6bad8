"""Metadata services of clouds, played by a real local server."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from speciate.core.errors import SignalUnavailable
from speciate.core.ports import NoticeSource
from speciate.telemetry.notices import AwsNotice, GcpNotice


class Metadata(BaseHTTPRequestHandler):
    """Both clouds at once; `goes` is when the machine goes, an empty text while it stays."""

    goes = ""

    def do_PUT(self) -> None:
        assert self.path == "/latest/api/token"
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(200, b"secret")

    def do_GET(self) -> None:
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers["X-aws-ec2-metadata-token"] != "secret":
                self._answer(401, b"")
            elif self.goes:
                self._answer(200, json.dumps({"action": "terminate", "time": self.goes}).encode())
            else:
                self._answer(404, b"")
        elif self.headers["Metadata-Flavor"] == "Google":
            self._answer(200, b"TRUE\n" if self.goes else b"FALSE\n")
        else:
            self._answer(403, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    Metadata.goes = ""
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_aws_says_when(url: str) -> None:
    source: NoticeSource = AwsNotice(url)
    assert [source.goes_at_s(), source.goes_at_s()] == [None, None]
    Metadata.goes = "2026-11-25T07:00:00Z"
    assert source.goes_at_s() == 1_795_590_000.0


def test_aws_answers_that_are_none_are_named(url: str) -> None:
    source = AwsNotice(url)
    source.goes_at_s()
    Metadata.goes = "soon"
    with pytest.raises(SignalUnavailable, match="no instance action"):
        source.goes_at_s()


def test_google_says_that_and_half_a_minute_counts_from_then(url: str) -> None:
    now_s = [100.0]
    source: NoticeSource = GcpNotice(url, lambda: now_s[0])
    assert source.goes_at_s() is None
    Metadata.goes = "now"
    assert source.goes_at_s() == 130.0
    now_s[0] = 110.0
    assert source.goes_at_s() == 130.0


@pytest.mark.parametrize("source", [AwsNotice("http://127.0.0.1:9"), GcpNotice("http://127.0.0.1:9")])
def test_nobody_there(source: NoticeSource) -> None:
    with pytest.raises(SignalUnavailable, match="Is this machine in that cloud"):
        source.goes_at_s()
