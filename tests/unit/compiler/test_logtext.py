"""A build's log is a stranger's text: it must not reach a terminal as it is."""

from __future__ import annotations

import pytest

from offchainvm.compiler.logtext import LINE_CHARS, LineSplitter, clean_line, clean_text


@pytest.mark.parametrize(
    ("untrusted", "cleaned"),
    [
        (b"plain", "plain"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;https://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1bPdevice\x1b\\after", "after"),
        (b"\x1b(0lines\x1bM", "lines"),
        ("\x9b31mred".encode(), "red"),
        (b"a\x00b\x08c\x7fd", "abcd"),
        (b"a\tb", "a    b"),
        ("safe\u202egnp.exe\u2066".encode(), "safegnp.exe"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"unfinished \x1b[", "unfinished"),
    ],
)
def test_escapes_and_control_characters_go(untrusted: bytes, cleaned: str) -> None:
    assert clean_line(untrusted) == cleaned


def test_a_long_line_is_cut() -> None:
    assert len(clean_line(b"x" * 300_000)) == LINE_CHARS
    assert len(clean_line("ä".encode() * 300_000)) == LINE_CHARS


def test_the_tail_keeps_the_last_lines() -> None:
    text = clean_text(b"\n".join(b"%d" % number for number in range(100)), lines=3)

    assert text == "97\n98\n99"


def test_lines_are_joined_over_chunks() -> None:
    splitter = LineSplitter()

    assert list(splitter.feed(b"one\ntw")) == ["one"]
    assert list(splitter.feed(b"o\r\nthr")) == ["two"]
    assert list(splitter.finish()) == ["thr"]


def test_a_line_without_an_end_is_not_collected() -> None:
    splitter = LineSplitter()

    lines = [line for _ in range(40) for line in splitter.feed(b"x" * 16_384)]

    assert lines
    assert all(len(line) <= LINE_CHARS for line in lines)


def test_a_login_in_an_address_is_left_out() -> None:
    line = b"failed to download from `https://user:pass@mirror.example/index/config.json`, see x@y"

    assert clean_line(line) == "failed to download from `https://mirror.example/index/config.json`, see x@y"
