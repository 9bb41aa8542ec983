"""Makes the pictures in docs/images: a stack of this machine runs some requests, and a browser looks at its pages.

``python docs/screenshots.py [FOLDER]``; it wants chromium and chromium-driver. With a folder, every page is taken into it in
light, in the dark and at a phone's width, to be looked at; without one, the few that the docs show.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import chromium

from offchainvm.cli import world
from offchainvm.cli.stack import Stack, StackOptions
from offchainvm.compiler.local import BRANCH
from offchainvm.devnet.client import Limits

IMAGES = Path(__file__).with_name("images")
TEXT = "A machine room that lets contracts run heavy code off chain.\nNothing of it is trusted, all of it is counted.\n" * 40
_SETTLE_SECONDS = 4
VIEWS = {
    "light": (chromium.WIDE, False),
    "dark": (chromium.WIDE, True),
    "phone": (chromium.PHONE, False),
    "phone-dark": (chromium.PHONE, True),
}


@contextmanager
def running() -> Iterator[tuple[Stack, dict[str, str]]]:
    """A stack that ran some requests, and the addresses of its pages by their names."""
    with tempfile.TemporaryDirectory(prefix="offchainvm-") as place:
        example = world.publish_example(Path(place) / "mirror")
        roles = ("bridge", "execute", "resolve", "web", "flower")
        options = StackOptions(roles=roles, settings={**example.settings, "TASK_EVENTS": "true"})
        with Stack(options, folder=Path(place) / "stack") as stack:
            world.upload_prebuilt(stack, example)
            limits = [Limits(max_instructions=600_000), *[Limits()] * 7]
            asked = [stack.client.request_execution(world.REPOSITORY, BRANCH, world.TARGET, TEXT, one) for one in limits]
            for request in asked:
                stack.client.result(request.request_id, 60)
            time.sleep(_SETTLE_SECONDS)  # the settler, Flower and the registry follow what the chain knows
            page = stack.page_url("web")
            yield stack, {
                "jobs": page, "job": f"{page}/jobs/{asked[1].data_id}", "failed-job": f"{page}/jobs/{asked[0].data_id}",
                "fleet": f"{page}/fleet", "keys": f"{page}/keys", "queues": f"{page}/queues", "flower": f"{stack.page_url('flower')}/tasks",
            }  # fmt: skip


def take(browser: Chrome, url: str, file: Path, *, whole: bool) -> None:
    """One picture; ``whole``: the page to its end, else what a window shows."""
    browser.get(url)
    if "flower" in file.name:
        time.sleep(2)  # its table is filled by a script
    if whole:
        height = browser.execute_script("return document.body.scrollHeight")
        width = browser.execute_script("return innerWidth")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.save_screenshot(str(file))
    print(f"{file} ({file.stat().st_size // 1024} KiB)")


def main() -> None:
    with running() as (_, pages):
        if len(sys.argv) > 1:
            folder = Path(sys.argv[1])
            folder.mkdir(parents=True, exist_ok=True)
            for view, (width, dark) in VIEWS.items():
                with chromium.browser(width=width, dark=dark) as browser:
                    for name, url in pages.items():
                        take(browser, url, folder / f"{name}-{view}.png", whole=name != "flower")
            return
        IMAGES.mkdir(exist_ok=True)
        with chromium.browser(height=760) as browser:
            for name in ("failed-job", "flower"):
                take(browser, pages[name], IMAGES / f"{name}.png", whole=False)


if __name__ == "__main__":
    main()
