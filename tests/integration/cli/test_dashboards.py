"""The status page and Flower, looked at with a real browser, beside a stack that ran a job and a failed one."""

from __future__ import annotations

from collections.abc import Iterator

import chromium
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from world import until

from offchainvm.cli import world
from offchainvm.cli.stack import Stack
from offchainvm.compiler.local import BRANCH
from offchainvm.devnet.client import Limits, Requested


@pytest.fixture(scope="module")
def ran(stack: Stack) -> tuple[Requested, Requested]:
    """An answered request, and one whose instructions were not enough."""
    asked = [
        stack.client.request_execution(world.REPOSITORY, BRANCH, world.TARGET, "<b>two</b> words", limits)
        for limits in (Limits(), Limits(max_instructions=10))
    ]
    for request in asked:
        stack.client.result(request.request_id, 60)
    return asked[0], asked[1]


@pytest.fixture(scope="module")
def pages(stack: Stack) -> Iterator[dict[str, str]]:
    """Both pages, by their names."""
    names = stack.add("web", "flower")
    yield {name: stack.page_url(name) for name in names}
    for name in names:
        stack.processes.pop(name).stop(15)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium.browser(width=chromium.PHONE) as one:
        yield one


def text_of(browser: Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def test_the_status_page_shows_both_jobs_on_a_phone_and_the_browser_has_no_complaint(
    browser: Chrome, pages: dict[str, str], ran: tuple[Requested, Requested]
) -> None:
    good, bad = ran

    def settled() -> bool:
        browser.get(f"{pages['web']}/?find={bad.request_id}")
        return "accepted, failed" in text_of(browser)

    until(settled, "the failed job on the page", seconds=20)
    browser.find_element(By.LINK_TEXT, str(bad.request_id)).click()
    assert "out_of_fuel" in text_of(browser)
    assert "Ask for more instructions" in text_of(browser)
    browser.get(f"{pages['web']}/jobs/{good.data_id}")
    assert '"longest":"<b>two</b>"' in text_of(browser)  # as text: no element of the answer's
    assert len(browser.find_elements(By.CSS_SELECTOR, ".timeline svg rect.work")) >= 2
    for path in ("", "fleet", "keys", "queues"):
        browser.get(f"{pages['web']}/{path}")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= chromium.PHONE, path
    assert "signs" in (browser.get(f"{pages['web']}/keys") or text_of(browser))
    assert [line for line in browser.get_log("browser") if "favicon" not in line["message"]] == []


def test_flower_shows_the_tasks_by_name(stack: Stack, browser: Chrome, pages: dict[str, str]) -> None:
    stack.client.result(stack.client.request_execution(world.REPOSITORY, BRANCH, world.TARGET, "for flower").request_id, 60)

    def shown() -> bool:
        browser.get(f"{pages['flower']}/tasks")
        return "offchainvm.execute" in browser.page_source

    until(shown, "the name of a task in Flower", seconds=20)
