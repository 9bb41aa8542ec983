"""Addresses: which are taken as they are, and in which words the others are refused, never with the password in them."""

from __future__ import annotations

import traceback

import pytest

from offchainvm.errors import SettingsError
from offchainvm.settings import Role, load

S3CRET = "S3cret"
MALFORMED_URLS = [
    ("REDIS_URL", "redis://:S3cret/pass@h:6379/0"),
    ("REDIS_URL", "redis://:S3cret?pass@h:6379/0"),
    ("REDIS_URL", "redis://:S3cret#pass@h:6379/0"),
    ("REDIS_URL", "redis://:S3cret[pass@h:6379/0"),
    ("REDIS_URL", "redis://user:1/S3cret@h:6379/0"),
    ("REDIS_URL", "redis://user:1?S3cret=1@h:6379/0"),
    ("REDIS_URL", "redis://h:S3cret"),
    ("REDIS_URL", "redis://h/S3cret"),
    ("REDIS_URL", "redis://h?socket_timeout=S3cret"),
    ("REDIS_URL", "redis://h?S3cret=1"),
    ("REDIS_URL", "rediss://h?ssl_cert_reqs=S3cret"),
    ("REDIS_URL", "unix://:pass/S3cret@/run/redis.sock"),
    ("REDIS_URL", "sentinel://:S3cret/pass@one,two"),
    ("REDIS_URL", "sentinel://one:S3cret"),
    ("REDIS_URL", "sentinel://one/S3cret"),
    ("REDIS_URL", "sentinel://:S3cret@one,/0"),
    ("BROKER_URL", "redis://:S3cret/pass@h:6379/0"),
    ("BROKER_URL", "sentinel://one:S3cret"),
    ("BROKER_URL", "amqp://user:S3cret/pass@h"),
    ("BROKER_URL", "amqp://user:S3cret[pass@h"),
    ("SOURCE_MIRROR_URL", "https://user:S3cret/pass@h"),
    ("CRATES_MIRROR_URL", "sparse+https://user:S3cret/pass@h/index/"),
    ("NEAR_RPC_URL", "https://h/, https://user:S3cret/pass@h"),
]


@pytest.mark.parametrize(("name", "url"), MALFORMED_URLS)
def test_an_address_that_cannot_be_read_is_told_without_the_password(complete: dict[str, str], name: str, url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(Role, environ={**complete, name: url})
    assert [problem.partition(";")[0] for problem in caught.value.problems] == [f"{name}: cannot be read"]
    assert S3CRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["API_BASE_URL", "NEAR_RPC_URL", "NEARDATA_API_URL", "FASTNEAR_API_URL"])
def test_a_service_takes_no_password_in_its_address(complete: dict[str, str], name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: must hold no user and no password") as caught:
        load(Role, environ={**complete, name: f"https://user:{S3CRET}@h"})
    assert S3CRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("REDIS_URL", "redis://[::1]:6379"),
        ("REDIS_URL", "redis://:p%2Fss@h/?db=2&socket_timeout=3"),
        ("REDIS_URL", "unix://:pass@/run/redis.sock?db=1"),
        ("REDIS_URL", "sentinel://u:p%40ss@one,two:26380/3?service=jobs"),
        ("BROKER_URL", "unix:///run/redis.sock?virtual_host=1"),
        ("BROKER_URL", "amqp://u:p@one:5672//;amqp://u:p@two:5672//"),
        ("SOURCE_MIRROR_URL", "https://user:pass@h:8443/mirror"),
    ],
)
def test_an_address_that_can_be_read_is_kept_as_it_is(complete: dict[str, str], name: str, url: str) -> None:
    assert getattr(load(Role, environ={**complete, name: url}), name.lower()) == url


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("REDIS_URL", "h:6379", "must start with redis://, rediss://, unix:// or sentinel://"),
        ("API_BASE_URL", "localhost:8080", "must start with http:// or https://"),
        ("API_BASE_URL", "http://", "must name a host"),
        ("CRATES_MIRROR_URL", 'https://h/"', "must hold no space, quote or backslash"),
        ("WORKER_ID", "two words", "must be at most 64 letters, digits, dots, dashes and underscores"),
    ],
)
def test_a_shape_that_does_not_hold_is_told_in_words(complete: dict[str, str], name: str, value: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(Role, environ={**complete, name: value})
    assert caught.value.problems[0].startswith(f"{name}: {sentence}.")
