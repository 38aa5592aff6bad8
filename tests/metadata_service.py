"""Metadata services of clouds, played by a real local server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


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


@contextmanager
def metadata_service() -> Iterator[str]:
    """Gives its URL. The machine stays until `Metadata.goes` is set."""
    Metadata.goes = ""
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()
