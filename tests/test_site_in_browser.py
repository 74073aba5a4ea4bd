"""The built pages in Chromium: what a reader meets, wide and narrow, light and dark.

Needs `make site` and Chromium (Debian's package `chromium`); without them there is nothing to test.
"""

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websocket import WebSocket, create_connection

PAGES = Path(__file__).parents[1] / "scratch" / "site" / "html"
CHROMIUM = shutil.which("chromium")
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
PATIENCE_SECONDS = 120
READERS = {"phone, dark": (390, 844, "dark"), "desk, light": (1280, 900, "light")}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(not (PAGES / "index.html").exists(), reason="make site was not run"),
]

# What of a page reaches beyond the screen without a scrollable part around it, and which images fail.
FAULTS = """(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = (e) => e && e !== document.body
    && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
  const wide = [...document.querySelectorAll("article *")]
    .filter((e) => e.getBoundingClientRect().right > width + 1 && !scrolls(e));
  const broken = [...document.images].filter((i) => i.complete && !i.naturalWidth);
  return {
    page: document.documentElement.scrollWidth > width ? ["wider than the screen"] : [],
    wide: wide.map((e) => e.tagName + " " + e.textContent.trim().slice(0, 40)).slice(0, 3),
    broken: broken.map((i) => i.src),
    fetched: performance.getEntriesByType("resource").map((r) => r.name)
      .filter((name) => name.startsWith("http")),
  };
})()"""


class Browser:
    """One page of a headless Chromium, spoken to by its own protocol."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [CHROMIUM, *SWITCHES, f"--user-data-dir={folder}", "about:blank"],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        port, path = self._address(folder / "DevToolsActivePort")
        self._numbers = itertools.count(1)
        self._socket: WebSocket = create_connection(f"ws://127.0.0.1:{port}{path}")
        target = self._say("Target.createTarget", url="about:blank")["targetId"]
        attached = self._say("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def _address(self, file: Path) -> list[str]:
        while not (file.exists() and len(file.read_text().split()) == 2):
            assert self._process.poll() is None, "Chromium ended"
            time.sleep(0.05)
        return file.read_text().split()

    def _say(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        session = getattr(self, "_session", {})
        message = {"id": number, "method": method, "params": parameters, **session}
        self._socket.send(json.dumps(message))
        while (answer := json.loads(self._socket.recv())).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def read_as(self, width: int, height: int, scheme: str) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._say("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._say("Emulation.setEmulatedMedia", features=[feature])

    def open(self, page: str) -> None:
        self._say("Page.navigate", url=(PAGES / "index.html").as_uri()[: -len("index.html")] + page)
        address = json.dumps(page)
        self.wait_for(f"location.href.endsWith({address}) && document.readyState === 'complete'")

    def wait_for(self, condition: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.value(condition):
            assert time.monotonic() < end, f"still not so: {condition}"
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        answer = self._say("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def pages() -> list[str]:
    found = (p.relative_to(PAGES) for p in PAGES.rglob("*.html"))
    return sorted(p.as_posix() for p in found if p.parts[0] not in ("_modules", "_static"))


@pytest.mark.parametrize("reader", READERS)
def test_pages_fit_the_screen_show_their_images_and_fetch_nothing(browser, reader):
    browser.read_as(*READERS[reader])
    faults = {}
    for page in pages():
        browser.open(page)
        found = browser.value(FAULTS)
        if any(found.values()):
            faults[page] = found
    assert faults == {}


def test_the_dark_is_dark(browser):
    lightness = {}
    for width, height, scheme in READERS.values():
        browser.read_as(width, height, scheme)
        browser.open("index.html")
        colour = browser.value("getComputedStyle(document.body).backgroundColor")
        lightness[scheme] = max(map(int, re.findall(r"\d+", colour)[:3]))
    assert lightness["dark"] < 64
    assert lightness["light"] > 192


def test_links_lead_somewhere():
    for page in pages():
        text = (PAGES / page).read_text()
        for target in re.findall(r'<a [^>]*href="([^"#?]+)', text):
            if not re.match(r"[a-z]+:", target):
                assert (PAGES / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_search_finds_a_function(browser):
    browser.open("search.html?q=node_weights")
    browser.wait_for("!!document.querySelector('#search-results li a')")
    found = browser.value(
        "[...document.querySelectorAll('#search-results li a')].map((a) => a.href)"
    )
    assert any("api/loss.html" in address for address in found)


def test_a_table_sorts_by_the_numbers_of_a_column_both_ways(browser):
    browser.open("reports/compare/tables/index.html")
    click = "document.querySelectorAll('article table')[0].tHead.rows[0].cells[6].click()"
    column = (
        "[...document.querySelectorAll('article table')[0].tBodies[0].rows]"
        ".map((row) => Number(row.cells[6].textContent))"
    )
    before = browser.value(column)
    browser.value(click)
    assert browser.value(column) == sorted(before) != before
    browser.value(click)
    assert browser.value(column) == sorted(before, reverse=True)


def test_words_that_start_with_a_digit_are_sorted_as_words(browser):
    browser.open("index.html")
    browser.value("""document.querySelector("article").insertAdjacentHTML("beforeend",
      `<table id="own"><thead><tr><th>a</th></tr></thead><tbody>${
        ["2nd", "1,155", "", "-0.5 [0, 1] *", "12", "10-day", "b"]
          .map((text) => `<tr><td>${text}</td></tr>`).join("")}</tbody></table>`)""")
    browser.value("makeSortable(document.querySelector('#own'))")
    browser.value("document.querySelector('#own th').click()")
    column = "[...document.querySelectorAll('#own td')].map((cell) => cell.textContent)"
    assert browser.value(column) == ["-0.5 [0, 1] *", "12", "1,155", "10-day", "2nd", "b", ""]


def test_a_figure_opens_in_full_size(browser):
    browser.open("reports/compare/04_compare.html")
    figures = "[...document.querySelectorAll('article img')]"
    assert browser.value(f"{figures}.length") > 0
    assert browser.value(f"{figures}.every((image) => image.closest('a').href === image.src)")


def test_rare_nodes_are_searched_and_their_counts_seen_on_a_phone(browser):
    browser.read_as(*READERS["phone, dark"])
    browser.open("reports/evaluate/icd10cm_limited/rare_nodes.html")
    browser.wait_for("!!document.querySelector('.table-search')")
    browser.value("""(() => {
      const field = document.querySelector(".table-search");
      field.value = "neoplasm mcm";
      field.dispatchEvent(new Event("input"));
    })()""")
    rows = "[...document.querySelectorAll('table.searchable tbody tr')]"
    shown = browser.value(f"{rows}.filter((row) => !row.hidden).map((row) => row.textContent)")
    assert 0 < len(shown) < browser.value(f"{rows}.length")
    assert all("neoplasm" in text.lower() and "mcm" in text for text in shown)
    heads = browser.value("""[...document.querySelectorAll("table.searchable th")]
      .filter((head) => head.getBoundingClientRect().right < innerWidth)
      .map((head) => head.textContent)""")
    assert heads[:3] == ["node", "hits", "misses"]


def test_all_that_is_known_of_rare_nodes_is_seen_at_a_desk(browser):
    browser.read_as(*READERS["desk, light"])
    tables = [page for page in pages() if page.endswith("/rare_nodes.html")]
    assert tables
    hidden = {}
    for page in tables:
        browser.open(page)
        browser.wait_for("!!document.querySelector('.table-search')")
        hidden[page] = browser.value("""(() => {
          const around = document.querySelector("table.searchable").parentElement;
          return around.scrollWidth - around.clientWidth;
        })()""")
    assert not any(hidden.values()), hidden
