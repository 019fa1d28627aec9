"""Pages of runs and schedules as a browser shows them: complete by themselves, with names as text."""

import json
import shutil
from contextlib import nullcontext

import pytest
from drawn_pages import LINES, draw, draw_schedule, make_run
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from sysds_resnet import plot


@pytest.fixture
def draw_page(capfd, monkeypatch):
    """Draw without the picture, which takes longer."""
    monkeypatch.setattr(plot, "write_png", lambda *_: None)
    return lambda *arguments: draw(capfd, *arguments)


@pytest.fixture
def schedule(capfd, tmp_path, monkeypatch, engine):
    """Draw a schedule with the session's engine, and give its title, its rates by epoch, and its marks."""
    monkeypatch.setattr(plot, "Engine", lambda *_args, **_kwargs: nullcontext(engine))
    return lambda *flags: draw_schedule(capfd, tmp_path, *flags)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a window, which writes down every request for a file."""
    names = ("chromium", "google-chrome", "chromium-browser")
    binary, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    assert binary and driver, (
        f"found {binary or 'no Chromium'} and {driver or 'no chromedriver'} on the PATH, expected both; "
        "install the packages chromium and chromium-driver (Debian), or Google Chrome and its chromedriver"
    )
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-quic", "window-size=1200,900",
        f"user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def show(browser, page, phone=False):
    """Open a page and check that it is complete by itself and as wide as the screen."""
    size = {"width": 390, "height": 844} if phone else {"width": 1200, "height": 900}
    metrics = {**size, "deviceScaleFactor": 1, "mobile": phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(page.as_uri())
    charts = "return document.querySelectorAll('#charts .scatterlayer').length"
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(charts))
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in urls
    assert all(url.split(":")[0] in ("file", "data", "blob") for url in urls), urls
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def drawn_lines(browser):
    """The width and height on the screen of each line that is drawn."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#charts .scatterlayer path.js-line')]"
        ".map(line => line.getBoundingClientRect()).map(box => [box.width, box.height])"
        ".filter(size => size[0] > 0)"
    )


@pytest.mark.long
@pytest.mark.parametrize("phone", [False, True])
def test_a_browser_shows_all_charts_of_several_runs(browser, draw_page, tmp_path, phone):
    for seed, name in enumerate(("one", "two")):
        make_run(tmp_path / name, seed=seed)
    draw_page(tmp_path / "one", tmp_path / "two", "--out", tmp_path)
    show(browser, tmp_path / "curves.html", phone)
    lines = drawn_lines(browser)
    assert len(lines) == 2 * (len(LINES) + 2)  # and the wait for data
    assert all(width > 100 and height > 5 for width, height in lines), lines
    text = browser.find_element("id", "charts").text
    for words in ("Loss", "cross-entropy (nats)", "Gradient norm", "GPU power", "one", "two"):
        assert words in text
    zooms = browser.execute_script("return document.getElementById('charts')._fullLayout.dragmode")
    assert zooms == (False if phone else "zoom"), "a finger scrolls"
    titles = browser.execute_script(
        "return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    )
    assert titles == ["Download plot as a PNG", "Zoom", "Pan", "Reset axes"], "none uploads the chart"


def test_a_browser_shows_names_and_settings_as_text(browser, draw_page, tmp_path):
    name = "<img src=x onerror=alert(1)>&amp;$_"
    for folder, dataset in ((name, "</script><script>alert(2)</script>"), ("<b>other", "'\"")):
        make_run(tmp_path / folder, dataset=dataset)
    draw_page(tmp_path / name, tmp_path / "<b>other", "--out", tmp_path)
    show(browser, tmp_path / "curves.html")  # an alert would be an error here
    assert (
        browser.execute_script("return document.querySelectorAll('main img, body > img, b, td *').length")
        == 0
    )
    assert [cell.text for cell in browser.find_elements("css selector", "tbody th")] == [name, "<b>other"]
    entries = [e.get_attribute("textContent") for e in browser.find_elements("css selector", ".legendtext")]
    assert {name, "<b>other"} <= set(entries)
    assert "</script><script>alert(2)</script>" in browser.find_element("css selector", "table").text
    draw_page(tmp_path / name)
    show(browser, tmp_path / name / "curves.html")
    assert browser.title == name


@pytest.mark.long
def test_a_browser_shows_a_schedule_with_both_axes(browser, schedule, tmp_path):
    schedule("cosine", "--images", 640, "--epochs", 6)
    show(browser, tmp_path / "schedule.html")
    assert len(drawn_lines(browser)) == 1
    text = browser.find_element("id", "charts").text
    for words in ("epoch", "step", "warm-up ends: 8.889 at step 8, epoch 0.8", "peak: 10 at step 9"):
        assert words in text
