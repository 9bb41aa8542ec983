"""A second build that fails: what VERIFY_BUILDS makes of it. The comparison itself is in the integration tests."""

from __future__ import annotations

from typing import Any, cast

import pytest

from offchainvm.compiler.base import BuildRequest, ignore_event
from offchainvm.compiler.run import BuildRun, Verify
from offchainvm.compiler.source import parse_source
from offchainvm.errors import BuildCode, BuildError
from offchainvm.models import CodeSource

REQUEST = BuildRequest(parse_source(CodeSource(repo="owner/name", commit="main")), "a" * 40)


def compare(monkeypatch: pytest.MonkeyPatch, verify: Verify, code: BuildCode) -> str:
    def fail(_run: BuildRun, name: str, _arguments: tuple[str, ...]) -> str:
        assert name == "verify"
        raise BuildError(code, "It ended.", log_tail="last words")

    monkeypatch.setattr(BuildRun, "_compile", fail)
    run = BuildRun(cast("Any", None), REQUEST, "id", cast("Any", None), cast("Any", None), None, verify, ignore_event)
    return run._compare("0" * 64, (), "/build/x.wasm")


@pytest.mark.parametrize(("code", "verdict"), [(BuildCode.COMPILE_ERROR, "no"), (BuildCode.TIMEOUT, "unchecked")])
def test_a_warning_keeps_the_module(monkeypatch: pytest.MonkeyPatch, code: BuildCode, verdict: str) -> None:
    assert compare(monkeypatch, "warn", code) == verdict


@pytest.mark.parametrize(
    ("verify", "code", "ends_with"),
    [
        ("require", BuildCode.COMPILE_ERROR, "not_reproducible"),
        ("require", BuildCode.TIMEOUT, "timeout"),
        ("require", BuildCode.SANDBOX_ERROR, "sandbox_error"),
        ("warn", BuildCode.SANDBOX_ERROR, "sandbox_error"),
    ],
)
def test_what_ends_the_build(monkeypatch: pytest.MonkeyPatch, verify: Verify, code: BuildCode, ends_with: str) -> None:
    with pytest.raises(BuildError) as caught:
        compare(monkeypatch, verify, code)
    assert caught.value.code == ends_with
    assert caught.value.log_tail == "last words"


def test_nothing_is_built_again_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare(monkeypatch, "off", BuildCode.COMPILE_ERROR) == "unchecked"
