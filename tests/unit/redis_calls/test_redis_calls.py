"""Redis' absence as an error of ours."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from offchainvm.errors import Unavailable
from offchainvm.redis_calls import reaching_redis


@pytest.mark.parametrize("text", ["Error 111 connecting to h:6379. Connection refused.", "Connection refused"])
def test_a_sentence_ends_with_one_stop(text: str) -> None:
    with pytest.raises(Unavailable) as caught, reaching_redis():
        raise RedisConnectionError(text)
    assert caught.value.sentence == f"Redis does not take the call: {text.rstrip('.')}."


@pytest.mark.parametrize("text", ["MISCONF Redis is configured to save RDB snapshots", "NOREPLICAS Not enough good replicas to write."])
def test_a_refusal_that_passes_is_an_absence(text: str) -> None:
    with pytest.raises(Unavailable), reaching_redis():
        raise ResponseError(text)


def test_a_call_that_is_wrong_stays_wrong() -> None:
    with pytest.raises(ResponseError), reaching_redis():
        raise ResponseError("ERR unknown command")
