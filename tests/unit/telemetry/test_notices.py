"""Notices of clouds, from metadata services that a real local server plays."""

from collections.abc import Iterator

import pytest
from tests.metadata_service import Metadata, metadata_service

from speciate.core.errors import SignalUnavailable
from speciate.core.ports import NoticeSource
from speciate.telemetry.notices import AwsNotice, GcpNotice


@pytest.fixture
def url() -> Iterator[str]:
    with metadata_service() as url:
        yield url


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
