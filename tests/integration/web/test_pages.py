"""The status page over HTTP: what it shows, to whom, and what it never does."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import redis
from world import until

from offchainvm.fleet import Member, Registry
from offchainvm.jobs.record import Stage
from offchainvm.near.nonces import Nonces
from offchainvm.web import server

TOKEN = "correct horse battery staple"
PAGES = ("/", "/fleet", "/keys", "/queues")
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202egnp.exe{{7*7}}"


def requests_of(html: str) -> list[int]:
    return [int(number) for number in re.findall(r'<a href="/jobs/[0-9a-f]{64}">(\d+)</a>', html)]


@pytest.mark.parametrize("path", PAGES)
def test_an_empty_house_is_shown_as_one(browser: Any, redis_client: redis.Redis, path: str) -> None:
    html = browser.text(path)
    assert "<h1>" in html
    assert "<script" not in html


def test_jobs_are_found_by_state_request_data_id_repository_sender_and_transaction(browser: Any, house: Any) -> None:
    house.accept(1, sender_id="ab" * 32)
    done = house.settled(2, sender_id="alice.near")
    house.answered(3, repo="https://github.com/other/one")
    house.in_flight("abc", 3)
    assert sorted(requests_of(browser.text("/"))) == [1, 2, 3]
    for query, numbers in {
        "state=queued": [1], "state=settled": [2], "state=resolving": [3], "state=parked": [], "state=nonsense": [1, 2, 3],
        "find=2": [2], f"find={done}": [2], "find=tests/echo": [1, 2], "find=https://github.com/other/one": [3], "find=abc": [3],
        "find=hash2": [2], "find=tests/echo&state=settled": [2],
        "find=alice.near": [2], "find=alice.near&state=queued": [], f"find={'ab' * 32}": [1],
        "find=nobody": [], "find=%00%ff%0d": [], f"find={'9' * 5000}": [],
    }.items():  # fmt: skip
        assert sorted(requests_of(browser.text(f"/?{query}"))) == numbers, query[:80]


def test_every_job_is_on_one_page_of_the_list_and_on_one_only(browser: Any, house: Any) -> None:
    for number in range(1, 41):
        house.accept(number)
    for number in range(41, 61):
        house.answered(number)
    house.in_flight("batch", *range(41, 51))
    pages = [requests_of(browser.text(f"/?page={number}")) for number in range(4)]
    assert [len(page) for page in pages] == [25, 25, 10, 0]
    assert sorted(chain(*pages)) == list(range(1, 61))
    assert "older →" in browser.text("/?page=1")
    assert "older →" not in browser.text("/?page=2")
    flying = [requests_of(browser.text(f"/?state=resolving&page={number}")) for number in range(2)]
    assert sorted(chain(*flying)) == list(range(41, 61))
    for odd in ("-1", "x", "9" * 30, "1e3", ""):
        assert browser.get(f"/?page={odd}").status == 200


def test_a_job_is_a_picture_with_limits_answer_and_history(browser: Any, house: Any, tmp_path: Path) -> None:
    data_id = house.settled(5, input_data='{"n": 1}', sender_id="alice.near")
    (tmp_path / "builds").mkdir()
    (tmp_path / "builds" / f"{'5e' * 32}.b1.log").write_text("   Compiling echo\n    Finished release\n")
    html = browser.text(f"/jobs/{data_id}")
    for stage in ("compile", "execute", "resolve"):
        assert re.search(rf'aria-label="{stage}: .* of work, .* of waiting"', html), stage
    for shown in (
        "9,500,000,000",
        "of 10,000,000,000",
        "1.0 MiB",
        "of 128.0 MiB",
        "done",
        "hash5",
        "/?find=alice.near",
        "Finished release",
        "worker-1:7",
        "{&#34;n&#34;: 1}",
    ):
        assert shown in html, shown
    assert 'rect class="full"' in html  # 95 % of the instructions


def test_a_failed_job_says_why_and_what_to_do(browser: Any, house: Any) -> None:
    html = browser.text(f"/jobs/{house.settled(6, error='out_of_fuel: all instructions were used')}")
    assert "out_of_fuel: all instructions were used" in html
    assert "Ask for more instructions" in html
    assert "accepted, failed" in html


def test_strangers_texts_are_shown_as_text(browser: Any, house: Any, tmp_path: Path) -> None:
    data_id = house.settled(7, repo=f"https://github.com/{HOSTILE}", input_data=HOSTILE, value=HOSTILE.encode())
    failed = house.settled(8, error=f"trap: {HOSTILE}")
    house.store.reject(HOSTILE.encode(), HOSTILE, 9)
    Registry(house.redis).beat(Member(HOSTILE, "node", ("execute",), host=HOSTILE, version=HOSTILE), well=True)
    (tmp_path / "builds").mkdir()
    (tmp_path / "builds" / f"{'5e' * 32}.b1.log").write_text(HOSTILE + "\n" + "long " * 60_000)
    for path in ("/", f"/jobs/{data_id}", f"/jobs/{failed}", "/fleet", "/queues", "/?find=%3Cscript%3Ealert(1)%3C/script%3E"):
        html = browser.text(path)
        assert "alert(1)" in html, path
        for raw in ("<script", "<img", "\x1b", "\u202e", ">49<", "onerror=alert(2)>"):
            assert raw not in html, (path, raw)
        assert len(html) < 40_000, path


@pytest.mark.parametrize("path", ["/jobs/", "/jobs/zz", f"/jobs/{'f' * 64}", "/nothing", "/login", "/%2e%2e/etc/passwd", "//x"])
def test_what_is_not_there_is_said_to_be_not_there(browser: Any, redis_client: redis.Redis, path: str) -> None:
    reply = browser.get(path)
    assert reply.status == 404
    assert b"There is no such" in reply.data


def test_a_flood_is_seen_by_the_jobs_that_one_share_has_waiting(browser: Any, house: Any) -> None:
    for number in (1, 2, 3):
        house.accept(number)
    house.accept(4, repo="https://github.com/tests/other")
    stages = " ".join(browser.text("/queues").split()).split("<tr>")
    [compiling] = [row for row in stages if "<td>compile</td>" in row]
    assert '<td class="number">4</td>' in compiling
    assert compiling.count('<td class="number">3</td>') == 1


def test_fleet_keys_and_queues_tell_what_the_records_hold(browser: Any, house: Any) -> None:
    data_id = house.accept(1)
    house.claim(data_id, Stage.COMPILE)
    house.answered(2)
    house.in_flight("inflight", 2)
    house.accept(3)
    Registry(house.redis).beat(Member("compile@w", "worker-1", ("compile",), engines=("wasmtime",)), well=True)
    nonces = Nonces(house.redis, network="testnet", account_id="op.testnet")
    with nonces.lock("ed25519:public") as lease:
        assert nonces.next(lease, floor=41, final_height=0) == 42
    with nonces.lock("ed25519:other"):
        nonces.disable("ed25519:other", "its allowance is used up")
    assert "working" in browser.text("/fleet")
    assert data_id[:8] in browser.text("/fleet")
    keys = browser.text("/keys")
    for shown in ("ed25519:public", "testnet/op.testnet", "42", "inflight", "its allowance is used up"):
        assert shown in keys, shown
    assert keys.count(">held<") == keys.count(">signs<") == 1
    queues = " ".join(browser.text("/queues").split())
    assert '<td>compile</td><td class="number">1</td>' in queues
    assert "<dt>Running</dt><dd>1</dd>" in queues


@pytest.mark.parametrize("path", [*PAGES, "/style.css", "/nothing"])
def test_every_reply_forbids_scripts_frames_and_guesses(browser: Any, redis_client: redis.Redis, path: str) -> None:
    reply = browser.get(path)
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert reply.headers["X-Frame-Options"] == "DENY"
    assert "Python" not in reply.headers["Server"]
    assert path == "/style.css" or reply.headers["Cache-Control"] == "no-store"


def test_with_a_token_nothing_is_shown_before_the_login(serve: Callable[..., Any], house: Any) -> None:
    browser, data_id = serve(TOKEN), house.settled(1)
    for path in (*PAGES, f"/jobs/{data_id}", "/nothing"):
        reply = browser.get(path)
        assert (reply.status, reply.headers["Location"], reply.data) == (303, "/login", b"")
        assert browser.get(path, Authorization="Bearer wrong").status == 401
        assert browser.get(path, Authorization=f"Bearer {TOKEN}").status == (404 if path == "/nothing" else 200)
    assert b'type="password"' in browser.get("/login").data
    refused = browser.post("/login", {"token": TOKEN[:-1]})
    assert (refused.status, "Set-Cookie" in refused.headers) == (403, False)
    entered = browser.post("/login", {"token": TOKEN})
    assert entered.status == 303
    cookie = entered.headers["Set-Cookie"].partition(";")[0]
    assert browser.get(f"/jobs/{data_id}", Cookie=cookie).status == 200
    assert TOKEN not in browser.get("/", Cookie=cookie).data.decode()


def test_a_page_led_here_by_a_strangers_name_is_not_shown(browser: Any, house: Any) -> None:
    house.settled(1)
    reply = browser.get("/", Host="rebind.example")
    assert (reply.status, b"jobs" in reply.data) == (421, False)


def test_nothing_but_the_login_can_be_sent(browser: Any, house: Any) -> None:
    for path, form in (("/", {}), ("/jobs/1", {"retry": "1"}), ("/login", {"token": "x" * 5000})):
        assert browser.post(path, form).status == 405


@pytest.mark.parametrize("target", ["http://[", "http://[1/", "/?" + "&".join(f"f{number}=1" for number in range(21))])
def test_an_address_that_cannot_be_read_is_refused_in_one_word(serve: Callable[..., Any], caplog: Any, target: str) -> None:
    for token in ("", TOKEN):
        port = int(serve(token).url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            assert connection.makefile("rb").readline().split()[1] == b"400"
    assert caplog.records == []


def test_a_form_of_too_many_fields_is_refused_in_one_word(serve: Callable[..., Any], caplog: Any) -> None:
    assert serve(TOKEN).post("/login", {f"f{number}": "1" for number in range(21)}).status == 400
    assert caplog.records == []


@pytest.mark.parametrize("size", ["²", "9" * 5000, "-1", ""])
def test_a_form_whose_size_is_no_number_is_refused(serve: Callable[..., Any], size: str) -> None:
    port = int(serve(TOKEN).url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"POST /login HTTP/1.0\r\nContent-Length: {size}\r\n\r\n".encode("latin-1"))
        assert connection.makefile("rb").readline().split()[1] == b"405"


def test_the_name_of_this_machine_may_be_written_in_capitals(browser: Any, redis_client: redis.Redis) -> None:
    assert browser.get("/fleet", Host="LocalHost:8585").status == 200


def test_connections_are_bounded_in_number_and_in_time(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MOST_AT_ONCE", 3)
    browser = serve()
    port = int(browser.url.rpartition(":")[2])
    idle = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(3)]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as one_too_many:
        assert one_too_many.makefile("rb").readline().split()[1] == b"503"
    monkeypatch.setattr(server, "_CONNECTION_SECONDS", 0.0)
    assert [connection.recv(1) for connection in idle] == [b""] * 3
    monkeypatch.setattr(server, "_CONNECTION_SECONDS", 30.0)
    # Who held one is told before its place is free.
    until(lambda: browser.get("/style.css").status == 200, "a place to be free")
    for connection in idle:
        connection.close()


def test_a_limit_that_this_worker_lowered_is_marked_and_no_other(browser: Any, house: Any) -> None:
    data_id = house.settled(1, clamped=("max_execution_seconds",))
    html = browser.text(f"/jobs/{data_id}")
    [marked] = re.findall(r"<dt>(\w+)</dt><dd>(?:(?!<dt>).)*lowered to this worker.{1,5}s maximum", html, re.DOTALL)
    assert marked == "time"


@pytest.mark.parametrize(("path", "title"), [("/nothing", "Not found"), ("/jobs/zz", "Not found"), ("/?find=nobody", "Jobs")])
def test_a_page_is_titled_by_what_it_says(browser: Any, redis_client: redis.Redis, path: str, title: str) -> None:
    assert f"<title>{title} ·" in browser.get(path).data.decode()


def test_without_redis_the_page_says_so(redis_client: redis.Redis, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise redis.exceptions.ConnectionError("refused")

    browser = serve()
    monkeypatch.setattr(redis_client.connection_pool, "get_connection", away)
    for path in PAGES:
        reply = browser.get(path)
        assert reply.status == 503
        assert b"<title>Unavailable " in reply.data
        assert b"Redis does not take the call" in reply.data
