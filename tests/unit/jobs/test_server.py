"""Redis' absence as an error of ours."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from offchainvm.errors import Unavailable
from offchainvm.jobs.server import reaching_redis


@pytest.mark.parametrize("text", ["Error 111 connecting to h:6379. Connection refused.", "Connection refused"])
def test_a_sentence_ends_with_one_stop(text: str) -> None:
    with pytest.raises(Unavailable) as caught, reaching_redis():
        raise RedisConnectionError(text)
    assert caught.value.sentence == f"Redis does not take the call: {text.rstrip('.')}."
