"""The block service's client against a real HTTP server (wire.md §3)."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from offchainvm.errors import Refused, Unauthorized, Unavailable
from offchainvm.near.blocks import NOT_YET, SKIPPED, Block, BlockService
from offchainvm.near.heights import HeightService, fastnear_url, newest_height


def block(height: int) -> dict[str, Any]:
    header = {"height": height, "hash": f"hash-{height}", "prev_hash": f"hash-{height - 1}", "prev_height": height - 1}
    return {"block": {"author": "a", "header": header, "chunks": []}, "shards": [{"shard_id": 0, "receipt_execution_outcomes": []}]}


def service(server: Any, **options: Any) -> BlockService:
    return BlockService(f"{server.url}/v0/block", **{"read_seconds": 2, "requests_per_minute": 600_000, **options})


def test_block_is_read_with_its_place_in_the_chain(server: Any, reply: Any) -> None:
    server.will(reply(block(70)))
    found = service(server).block(70)
    assert isinstance(found, Block)
    assert (found.height, found.hash, found.prev_hash) == (70, "hash-70", "hash-69")
    assert len(found.untrusted_shards) == 1
    assert server.seen[0].path == "/v0/block/70"


def test_null_is_a_height_that_consensus_skipped(server: Any, reply: Any) -> None:
    server.will(reply(b"null"))
    assert service(server).block(70) is SKIPPED


@pytest.mark.parametrize("body", [{"type": "BLOCK_DOES_NOT_EXIST", "error": "too far in the future"}, b"", b"not found", b"[]"])
def test_404_is_not_yet_and_never_skipped(server: Any, reply: Any, body: Any) -> None:
    server.will(reply(body, status=404))
    assert service(server).block(70) is NOT_YET


@pytest.mark.parametrize("kind", ["BLOCK_HEIGHT_TOO_LOW", "BLOCK_HEIGHT_TOO_HIGH"])
def test_404_of_a_height_that_this_chain_never_has_is_a_wrong_setting(server: Any, reply: Any, kind: str) -> None:
    server.will(reply({"error": "x", "type": kind}, status=404))
    with pytest.raises(Refused, match=kind) as caught:
        service(server).block(1)
    assert "START_BLOCK_HEIGHT" in str(caught.value)


def test_long_poll_that_outlasts_us_means_not_yet(server: Any, reply: Any) -> None:
    server.will(reply(block(70), delay_seconds=0.5))
    assert service(server, read_seconds=0.1).block(70) is NOT_YET


def test_old_heights_are_read_where_the_service_redirects(start_server: Any, reply: Any) -> None:
    main = start_server()
    main.will(reply(b"", status=302, headers={"Location": f"{main.url}/archive/7"}), reply(block(7)))
    found = service(main, api_key=SecretStr("key&1")).block(7)
    assert isinstance(found, Block)
    assert [seen.path for seen in main.seen] == ["/v0/block/7?apiKey=key%261", "/archive/7?apiKey=key%261"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["another host", "another port"])
def test_api_key_does_not_follow_to_another_site(start_server: Any, reply: Any, host: str) -> None:
    main, stranger = start_server(), start_server()
    main.will(reply(b"", status=302, headers={"Location": f"http://{host}:{stranger.port}/v0/block/7"}))
    stranger.will(reply(block(7)))
    service(main, api_key=SecretStr("secret")).block(7)
    assert stranger.seen[0].path == "/v0/block/7"


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("https://near.blocks.co.uk/v0/block/7", True),
        ("https://a0.near.blocks.co.uk/v0/block/7", True),
        ("http://near.blocks.co.uk/v0/block/7", False),
        ("https://near.blocks.co.uk:8443/v0/block/7", False),
        ("https://other.co.uk/v0/block/7", False),
        ("https://blocks.co.uk/v0/block/7", False),
        ("https://evilnear.blocks.co.uk/v0/block/7", False),
    ],
)
def test_api_key_goes_to_the_configured_host_and_those_below_it_alone(target: str, told: bool) -> None:
    blocks = BlockService("https://near.blocks.co.uk/v0/block", api_key=SecretStr("secret"))
    assert ("secret" in blocks._with_api_key(target)) is told


def test_redirects_without_end_are_an_error(server: Any, reply: Any) -> None:
    server.will(reply(b"", status=302, headers={"Location": "/v0/block/7"}))
    with pytest.raises(Unavailable, match="too many redirects"):
        service(server).block(7)


@pytest.mark.parametrize(
    "bad",
    [
        {"status": 500, "body": "Cache error: The block is not cached"},
        {"status": 503, "body": b""},
        {"close": True},
        {"body": block(70), "cut": True},
        {"body": b"<html>"},
        {"body": {"block": {}}},
        {"body": [1]},
        {"body": block(71)},
        {"body": {**block(70), "shards": 7}},
        {"body": b'{"block": {"header": {"height": Infinity, "hash": "a", "prev_hash": "b"}}}'},
        {"status": 302, "headers": {"Location": "http://[/v0/block/70"}},
        {"status": 302, "headers": {"Location": "http://127.0.0.1:port/v0/block/70"}},
    ],
)
def test_what_is_no_answer_is_unavailable_and_never_a_skipped_block(server: Any, reply: Any, bad: Any) -> None:
    server.will(reply(**bad), reply(block(70)))
    blocks = service(server)
    with pytest.raises(Unavailable):
        blocks.block(70)
    assert isinstance(blocks.block(70), Block)


def test_429_is_honoured_for_the_time_it_names(server: Any, reply: Any) -> None:
    server.will(reply(b"", status=429, headers={"Retry-After": "20"}), reply(block(70)))
    blocks = service(server)
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            blocks.block(70)
        assert caught.value.retry_after_seconds is not None
        assert caught.value.retry_after_seconds > 15
    assert len(server.seen) == 1


def test_refused_api_key_is_named_by_its_setting(server: Any, reply: Any) -> None:
    server.will(reply(b"", status=401))
    with pytest.raises(Unauthorized, match="NEARDATA_API_KEY") as caught:
        service(server, api_key=SecretStr("secret")).block(7)
    assert "secret" not in str(caught.value)


def test_bad_request_is_a_wrong_setting(server: Any, reply: Any) -> None:
    server.will(reply("Invalid argument", status=400))
    with pytest.raises(Refused, match="NEARDATA_API_URL"):
        service(server).block(7)


def test_unreachable_service_is_told_without_its_key() -> None:
    blocks = BlockService("http://127.0.0.1:1/v0/block", api_key=SecretStr("secret"), connect_seconds=1)
    with pytest.raises(Unavailable, match="connection refused") as caught:
        blocks.block(7)
    assert "secret" not in f"{caught.value}{caught.value.__cause__}{blocks.name}"


def test_last_final_height_is_read_from_the_redirect(server: Any, reply: Any) -> None:
    server.will(
        reply(b"", status=302, headers={"Location": "/elsewhere/v0/last_block/final"}),
        reply(b"", status=302, headers={"Location": "/v0/block/123456"}),
    )
    assert service(server).last_final_height() == 123456
    assert [request.path for request in server.seen] == ["/v0/last_block/final", "/elsewhere/v0/last_block/final"]


def test_last_final_height_is_read_from_a_block_too(server: Any, reply: Any) -> None:
    server.will(reply(block(99)))
    assert service(server).last_final_height() == 99


def test_last_final_height_of_a_service_without_one_is_a_wrong_setting(server: Any, reply: Any) -> None:
    server.will(reply(b"", status=404))
    with pytest.raises(Refused, match="NEARDATA_API_URL"):
        service(server).last_final_height()


def test_newest_height_comes_from_the_first_source_that_answers(server: Any, reply: Any) -> None:
    server.will(reply({"sync_block_height": 77}), reply(b"oops", status=500), reply({"other": 1}))
    heights = HeightService(server.url)
    assert newest_height([heights.newest_height, lambda: 1]) == 77
    assert newest_height([heights.newest_height, lambda: 1]) == 1
    with pytest.raises(Unavailable, match="sync_block_height"):
        newest_height([heights.newest_height])


def test_source_of_the_newest_height_belongs_to_the_network() -> None:
    assert fastnear_url("https://testnet.neardata.xyz/v0/block") == "https://test.api.fastnear.com/status"
    assert fastnear_url("https://mainnet.neardata.xyz/v0/block") == "https://api.fastnear.com/status"
