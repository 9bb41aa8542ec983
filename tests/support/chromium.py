"""A real browser without a screen: Debian's chromium, driven by its chromedriver."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

WIDE, PHONE = 1100, 390


@contextmanager
def browser(*, width: int = WIDE, height: int = 800, dark: bool = False) -> Iterator[Chrome]:
    """A window of that many CSS pixels; its console is kept (``get_log("browser")``)."""
    driver, program = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not program:
        if os.environ.get("CI"):
            raise FileNotFoundError("There is no chromium: apt-get install chromium chromium-driver")
        pytest.skip("there is no chromium here: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = program
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars", "no-proxy-server"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < WIDE}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield chrome
    finally:
        chrome.quit()
