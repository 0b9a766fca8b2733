"""A real browser for tests of pages: what goes wrong in one is kept, and what axe-core finds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
LOCAL = ("file:", "blob:", "data:")


@contextmanager
def started() -> Iterator[Any]:
    """Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


def watched(context: Any) -> Any:
    """A new page; `page.wrong` gets errors, failed requests, and every request that leaves."""
    page = context.new_page()
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)
    page.on("requestfailed", lambda request: page.wrong.append(request.url))

    def asked(request: Any) -> None:
        if not request.url.startswith(LOCAL):
            page.wrong.append(request.url)

    page.on("request", asked)
    return page


def violations(page: Any) -> list[str]:
    """What axe-core finds that is serious or critical, and where."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {node['html'][:120]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
