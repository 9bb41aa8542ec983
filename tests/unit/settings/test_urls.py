"""Addresses: which are taken as they are, and in which words the others are refused, never with the password in them."""

from __future__ import annotations

import traceback

import pytest

from offchainvm.errors import SettingsError
from offchainvm.settings import Role, load

S3CRET = "S3cret"
UNREADABLE = [
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
    ("BROKER_URL", "redis://:S3cret#pass@h:6379/0"),
    ("BROKER_URL", "redis://:1/S3cret@h:6379/0"),
    ("BROKER_URL", "redis://user:1/S3cret@h:6379/0"),
    ("BROKER_URL", "redis://h:6379/0#S3cret"),
    ("BROKER_URL", "unix://:1/S3cret@/run/redis.sock"),
    ("BROKER_URL", "amqp://:1/S3cret@h"),
    ("BROKER_URL", "amqp://one/#S3cret"),
    ("BROKER_URL", "amqp://one;user:S3cret/pass@two"),
    ("SOURCE_MIRROR_URL", "https://user:S3cret/pass@h"),
    ("CRATES_MIRROR_URL", "sparse+https://user:S3cret/pass@h/index/"),
    ("NEAR_RPC_URL", "https://h/, https://user:S3cret/pass@h"),
    ("NEAR_RPC_URL", "https:///S3cret@h"),
]
READABLE = [
    ("REDIS_URL", "redis:///0"),
    ("REDIS_URL", "redis://[::1]:6379"),
    ("REDIS_URL", "redis://:p%2Fss@h/?db=2&socket_timeout=3"),
    ("REDIS_URL", "redis://h/0?client_name=a@b"),
    ("REDIS_URL", "unix://:pass@/run/redis.sock?db=1"),
    ("REDIS_URL", "sentinel://u:p%40ss@one,two:26380/3?service=jobs"),
    ("BROKER_URL", "redis:///0"),
    ("BROKER_URL", "redis://:pass@/1"),
    ("BROKER_URL", "redis://h/0?client_name=a@b"),
    ("BROKER_URL", "rediss://h:6380/0?ssl_cert_reqs=CERT_REQUIRED"),
    ("BROKER_URL", "unix:///run/redis.sock?virtual_host=1"),
    ("BROKER_URL", "sentinel://:pass@one:26379,two:26380/3?service=jobs"),
    ("BROKER_URL", "amqp://"),
    ("BROKER_URL", "amqp://u:p@/vh"),
    ("BROKER_URL", "amqps://u:p@h:5671/vh?heartbeat=a@b"),
    ("BROKER_URL", "amqp://one;two"),
    ("BROKER_URL", "amqp://u:p@one:5672//;amqp://u:p@two:5672//"),
    ("SOURCE_MIRROR_URL", "https://user:pass@h:8443/mirror"),
    ("SOURCE_MIRROR_URL", "https://h/a@b"),
    ("NEARDATA_API_URL", "https://h/x?apiKey=a@b"),
]


@pytest.mark.parametrize(("name", "url"), UNREADABLE)
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


@pytest.mark.parametrize(("name", "url"), READABLE)
def test_an_address_that_can_be_read_is_kept_as_it_is(complete: dict[str, str], name: str, url: str) -> None:
    assert getattr(load(Role, environ={**complete, name: url}), name.lower()) == url


def test_an_endpoint_may_have_a_key_with_an_at_sign(complete: dict[str, str]) -> None:
    url = "https://h/x?apiKey=a@b"
    assert load(Role, environ={**complete, "NEAR_RPC_URL": url}).near_rpc_url == (url,)


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
