"""Whether this machine is about to be taken: the metadata services of clouds, asked over HTTP. Implements core's port.

`goes_at_s` blocks for a second at most: call it on a thread.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import msgspec
from msgspec import Struct

from speciate.core.errors import SignalUnavailable

TIMEOUT_S = 1.0
AWS_URL = "http://169.254.169.254"
GCP_URL = "http://metadata.google.internal"
GCP_NOTICE_S = 30.0
"""What Google gives a preempted machine."""
TOKEN_S = 21_600


class AwsNotice:
    """EC2's `spot/instance-action` (two minutes before), by the session tokens of its second metadata version."""

    def __init__(self, url: str | None = None) -> None:
        self._url = (url or AWS_URL).rstrip("/")
        self._token = ""

    def goes_at_s(self) -> float | None:
        """Raises SignalUnavailable."""
        headers = {"X-aws-ec2-metadata-token": self._token}
        try:
            body = _read(f"{self._url}/latest/meta-data/spot/instance-action", headers)
        except HTTPError as error:
            error.close()
            if error.code == 404:
                return None
            if error.code != 401:
                raise SignalUnavailable(f"{self._url} answered {error.code}; is it a metadata service?") from error
            self._renew()
            return None
        return _aws_time_s(body, self._url)

    def _renew(self) -> None:
        """Asked again with the new token at the next poll."""
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
        try:
            self._token = _read(f"{self._url}/latest/api/token", headers, "PUT").decode("ascii")
        except HTTPError as error:
            error.close()
            raise SignalUnavailable(f"{self._url} gives no token: {error.code}") from error


class GcpNotice:
    """Compute Engine's `instance/preempted`: it says no time, so half a minute counts from when it was first seen."""

    def __init__(self, url: str | None = None, now_s: Callable[[], float] = time.time) -> None:
        self._url = (url or GCP_URL).rstrip("/")
        self._now_s = now_s
        self._goes_at_s: float | None = None

    def goes_at_s(self) -> float | None:
        """Raises SignalUnavailable."""
        path = "/computeMetadata/v1/instance/preempted"
        try:
            body = _read(self._url + path, {"Metadata-Flavor": "Google"})
        except HTTPError as error:
            error.close()
            raise SignalUnavailable(f"{self._url} answered {error.code}; is it a metadata service?") from error
        if body.strip() == b"TRUE" and self._goes_at_s is None:
            self._goes_at_s = self._now_s() + GCP_NOTICE_S
        return self._goes_at_s


class _Action(Struct):
    """`stop` and `hibernate` end the machine just as `terminate` does."""

    action: str
    time: str


def _aws_time_s(body: bytes, url: str) -> float:
    try:
        action = msgspec.json.decode(body, type=_Action)
        return datetime.fromisoformat(action.time.replace("Z", "+00:00")).astimezone(UTC).timestamp()
    except (msgspec.DecodeError, ValueError) as error:
        raise SignalUnavailable(f"{url} answered what is no instance action: {error}") from error


def _read(url: str, headers: dict[str, str], method: str = "GET") -> bytes:
    """Raises HTTPError for an answer that is no success, SignalUnavailable where nobody answers."""
    try:
        with urlopen(Request(url, headers=headers, method=method), timeout=TIMEOUT_S) as answer:
            body: bytes = answer.read(65_536)
            return body
    except HTTPError:
        raise
    except (URLError, OSError) as error:
        raise SignalUnavailable(f"{url} cannot be read: {error}. Is this machine in that cloud?") from error
