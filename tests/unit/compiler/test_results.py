"""What the phases answered, as bytes that strangers decide on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from offchainvm.compiler.archive import NotRegular, TooBig
from offchainvm.compiler.results import Answers, Results
from offchainvm.errors import BuildError


def test_what_was_not_answered_is_empty() -> None:
    answers = Answers({})
    assert (answers.text("rustc"), answers.tree, answers.metadata, answers.manifests) == ("", b"", b"", [""])


def test_manifests_are_split_and_read_as_text_whatever_they_hold() -> None:
    assert Answers({"manifests": b"[package]\0\xff\0"}).manifests == ["[package]", "\N{REPLACEMENT CHARACTER}", ""]


def test_more_manifests_than_anybody_writes_are_refused() -> None:
    with pytest.raises(BuildError, match="repo_too_large"):
        _ = Answers({"manifests": b"x" * (4 * 2**20 + 1)}).manifests


def test_a_short_answer_that_is_long_is_refused() -> None:
    assert Answers({"rustc": b"x" * 65536}).text("rustc") == "x" * 65536
    with pytest.raises(BuildError, match="repo_too_large"):
        Answers({"rustc": b"x" * 65537}).text("rustc")


@pytest.mark.parametrize("problem", [NotRegular("out/tree"), TooBig(2, 1)])
def test_answers_that_cannot_be_read_are_the_repositorys_doing(problem: Exception) -> None:
    def read_folder(*_: object, **__: object) -> dict[str, bytes]:
        raise problem

    place: Any = SimpleNamespace(read_folder=read_folder)
    with pytest.raises(BuildError, match="repo_too_large"):
        Results(place).answers()
