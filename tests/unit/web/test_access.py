"""Who may look at the status page."""

from __future__ import annotations

import time

import pytest
from pydantic import SecretStr

from offchainvm.errors import SettingsError
from offchainvm.web.access import COOKIE, Access

TOKEN = "correct horse battery staple"


def guarded() -> Access:
    return Access("0.0.0.0", SecretStr(TOKEN))  # noqa: S104 the point of it


def cookie_of(access: Access) -> str:
    return access.cookie().partition(";")[0]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.7", "worker.example", "127.0.0.1.example"])  # noqa: S104 as above
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(SettingsError, match="WEB_TOKEN: is missing"):
        Access(host, SecretStr(""))


def test_a_short_token_is_none_and_is_not_shown() -> None:
    with pytest.raises(SettingsError, match="shorter than 16") as error:
        Access("127.0.0.1", SecretStr("hunter2"))
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_this_machine_needs_none(host: str) -> None:
    assert Access(host, SecretStr("")).allows({})


def test_the_token_opens_as_bearer_and_nothing_near_it_does() -> None:
    access = guarded()
    assert access.allows({"authorization": f"Bearer {TOKEN}"})
    assert access.allows({"authorization": f"bearer {TOKEN}"})
    for wrong in (
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        "Bearer \ud800",
        f"Bearer {TOKEN.upper()}",
    ):
        assert not access.allows({"authorization": wrong}), wrong


def test_the_cookie_stands_for_the_token_and_does_not_hold_it() -> None:
    access = guarded()
    assert access.allows({"cookie": f"other=1; {cookie_of(access)}"})
    assert TOKEN not in access.cookie()
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in access.cookie().split(";")}


def test_a_cookie_of_another_token_or_time_opens_nothing() -> None:
    access, other = guarded(), Access("::", SecretStr(TOKEN + "!"))
    until, _, signature = cookie_of(access).removeprefix(f"{COOKIE}=").partition(".")
    for wrong in (cookie_of(other), f"{COOKIE}={int(until) + 1}.{signature}", f"{COOKIE}=.{signature}", f"{COOKIE}={until}.", f"{COOKIE}=",
                  f"{COOKIE}=٣.{signature}", f"{COOKIE}={until}.é", "\x00;=;", f"{COOKIE}={'9' * 5000}.{signature}"):  # fmt: skip
        assert not access.allows({"cookie": wrong}), wrong[:80]


def test_a_cookie_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    access = guarded()
    cookie, now = cookie_of(access), time.time()
    assert access.allows({"cookie": cookie})
    monkeypatch.setattr(time, "time", lambda: now + 8 * 86_400)
    assert not access.allows({"cookie": cookie})


def test_without_a_token_a_browser_that_was_led_here_by_a_strangers_name_sees_nothing() -> None:
    access = Access("127.0.0.1", SecretStr(""))
    for ours in ("127.0.0.1:8585", "localhost:8585", "localhost", "[::1]:8585"):
        assert not access.misled(ours), ours
    for strangers in ("rebind.example:8585", "127.0.0.1.example", "", "localhost.example:80"):
        assert access.misled(strangers), strangers
    assert not guarded().misled("status.example")
