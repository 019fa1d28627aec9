"""Pictures and pages of runs and schedules, whose pages a browser opens."""

import base64
import html
import json
import math
import re
import shutil
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from command_line import assert_one_line_error, run_here
from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from sysds_resnet import plot
from sysds_resnet.report.charts import BUCKETS, plot_curves

STEPS_PER_EPOCH = 5
# Of a complete run: the chart's unit, the line, the event and column it shows, and its scale.
LINES = [
    ("cross-entropy (nats)", "train, step", "step", "loss", 1),
    ("cross-entropy (nats)", "train, epoch", "epoch", "train_loss", 1),
    ("cross-entropy (nats)", "validation", "epoch", "val_loss", 1),
    ("%", "top-1, train, step", "step", "top1", 100),
    ("%", "top-1, validation", "epoch", "val_top1", 100),
    ("%", "top-5, validation", "epoch", "val_top5", 100),
    ("learning rate", "step", "step", "lr", 1),
    ("L2 norm", "step", "step", "grad_norm", 1),
    ("training images/s", "step", "step", "images_per_s", 1),
    ("training images/s", "epoch", "epoch", "images_per_s", 1),
    ("cores in use", "all processes", "resources", "cpu_percent", 0.01),
    ("GiB", "resident", "resources", "rss_bytes", 2**-30),
    ("GiB", "JVM heap", "resources", "heap_bytes", 2**-30),
    ("GiB", "GPU", "resources", "gpu_memory_bytes", 2**-30),
    ("% in use", "GPU", "resources", "gpu_percent", 1),
    ("W", "GPU", "resources", "gpu_power_w", 1),
]
OLD = {"loss", "top1", "top5", "lr", "images_per_s", "seconds", "data_wait_s"}  # columns of steps


def make_run(folder, epochs=3, seed=0, old=False, **config):
    """A run folder with the record of so many epochs, and the lines of the record."""
    rng = np.random.default_rng(seed)
    lines, clock = [], 1.8e9
    for step in range(1, epochs * STEPS_PER_EPOCH + 1):
        epoch, clock = math.ceil(step / STEPS_PER_EPOCH), clock + 60
        names = ("loss", "top1", "top5", "lr", "grad_norm", "images_per_s")
        values = dict(zip(names, rng.uniform(0.1, 1, len(names)).tolist(), strict=True))
        values |= {"epoch": epoch, "time": clock, "seconds": 60.0, "data_wait_s": rng.uniform(0, 60)}
        lines.append({"event": "step", "step": step, **values})
        names = ("cpu_percent", "rss_bytes", "heap_bytes", "gpu_percent", "gpu_memory_bytes", "gpu_power_w")
        values = dict(zip(names, rng.uniform(1, 2**32, len(names)).tolist(), strict=True))
        lines.append({"event": "resources", "step": step, "time": clock, **values})
        if step % STEPS_PER_EPOCH == 0:
            names = ("train_loss", "val_loss", "val_top1", "val_top5", "lr", "images_per_s")
            values = dict(zip(names, rng.uniform(0.1, 1, len(names)).tolist(), strict=True))
            values |= {"epoch": epoch, "time": clock, "seconds": 300.0, "data_wait_s": rng.uniform(0, 300)}
            lines.append({"event": "epoch", "step": step, **values})
    if old:
        kept = OLD | {"event", "step", "epoch", "train_loss", "val_loss", "val_top1", "val_top5"}
        lines = [{k: line[k] for k in line if k in kept} for line in lines if line["event"] != "resources"]
    write_record(folder, lines)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": "resnet50", "seed": seed, **config}))
    return lines


def write_record(folder, lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def draw(capfd, *arguments):
    """Draw without an error."""
    outcome = run_here(capfd, "plot", *arguments)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return outcome.out


@pytest.fixture
def draw_page(capfd, monkeypatch):
    """Draw without the picture, which takes longer."""
    monkeypatch.setattr(plot, "write_png", lambda *_: None)
    return lambda *arguments: draw(capfd, *arguments)


def figure_of(page):
    """The traces and the layout that a page gives to plotly."""
    text = page.read_text()
    decoder = json.JSONDecoder()
    data, end = decoder.raw_decode(text, re.search(r'Plotly\.newPlot\(\s*"charts",\s*', text).end())
    layout, _ = decoder.raw_decode(text, text.index("{", end))
    return data, layout


def numbers(values):
    """A trace's coordinates, which plotly may write as the bytes of an array."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).astype(float)
    return np.array(values, dtype=float)


def traces_of(page):
    """The points of a page's lines by the unit of their chart and their name."""
    data, layout = figure_of(page)
    return {
        (layout["yaxis" + trace.get("yaxis", "y")[1:]]["title"]["text"], trace["name"]): (x, y)
        for trace in data
        if len(x := numbers(trace["x"])) and not np.isnan(y := numbers(trace["y"])).all()
    }


def table_of(page):
    """The table of a page, as pandas reads HTML tables, without a parser of its own: cells of the rows."""
    rows = re.findall(r"<tr.*?>(.*?)</tr>", page.read_text(), re.S)
    cells = [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]
    return {row[0]: dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[1:]}


def test_a_page_holds_what_the_record_says(draw_page, tmp_path):
    lines = make_run(tmp_path / "run")
    draw_page(tmp_path / "run")
    found = traces_of(tmp_path / "run" / "curves.html")
    for unit, name, event, column, scale in LINES:
        x, y = found.pop((unit, name))
        of_event = [line for line in lines if line["event"] == event]
        np.testing.assert_array_equal(x, [line["step"] for line in of_event])
        np.testing.assert_allclose(y, [scale * line[column] for line in of_event], rtol=1e-15)
    for name in ("step", "epoch"):  # a share of the time
        of_event = [line for line in lines if line["event"] == name]
        expected = [100 * line["data_wait_s"] / line["seconds"] for line in of_event]
        np.testing.assert_allclose(found.pop(("% of the time", name))[1], expected)
    assert not found


@pytest.mark.parametrize(
    ("axis", "expected"),
    [("step", np.arange(1, 16)), ("epoch", np.arange(1, 16) / 5), ("hours", np.arange(1, 16) / 60)],
)
def test_lines_are_drawn_over_the_axis_asked_for(draw_page, tmp_path, axis, expected):
    make_run(tmp_path / "run")  # of a minute a step
    draw_page(tmp_path / "run", "--x", axis)
    np.testing.assert_allclose(traces_of(tmp_path / "run" / "curves.html")["L2 norm", "step"][0], expected)


def test_several_runs_share_charts_and_are_compared_in_a_table(draw_page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = {name: make_run(tmp_path / name, epochs, epochs, base_lr=lr, precision="bf16")
               for name, epochs, lr in (("one", 2, 4.0), ("two", 3, 8.0))}  # fmt: skip
    assert draw_page("one", "two") == "curves.png\ncurves.html\n"
    page = tmp_path / "curves.html"
    found, table = traces_of(page), table_of(page)
    assert list(table) == ["one", "two"]
    for name, lines in records.items():
        epochs = pd.DataFrame([line for line in lines if line["event"] == "epoch"])
        x, y = found["%", f"{name}: top-1, validation"]
        np.testing.assert_array_equal(x, epochs["step"])
        np.testing.assert_allclose(y, 100 * epochs["val_top1"])
        best = epochs["val_top1"].max()
        row = table[name]
        assert row["top-1 (%)"] == f"{100 * epochs['val_top1'].iloc[-1]:.2f}"
        assert row["best top-1 (%)"] == f"{100 * best:.2f} in epoch {1 + epochs['val_top1'].argmax()}"
        assert row["validation loss"] == f"{epochs['val_loss'].iloc[-1]:.4f}"
    assert [row["base_lr"] for row in table.values()] == ["4.0", "8.0"]
    assert not {"precision", "model", "momentum"} & set(table["one"]), "they do not differ"
    data, _ = figure_of(page)
    colors = {one: {t["line"]["color"] for t in data if t["name"].startswith(f"{one}:")} for one in records}
    assert all(len(found) == 1 for found in colors.values()) and colors["one"] != colors["two"]


def test_pictures_are_drawn_of_one_and_of_several_runs(capfd, tmp_path):
    for name in ("one", "_two $x$"):
        make_run(tmp_path / name)
    draw(capfd, tmp_path / "one", tmp_path / "_two $x$", "--out", tmp_path / "new" / "out")
    draw(capfd, tmp_path / "one")
    sizes = []
    for folder in ("one", "new/out"):
        with Image.open(tmp_path / folder / "curves.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50
            sizes.append(picture.size)
    assert sizes[1][1] > sizes[0][1], "the names need room"
    assert sorted(f.name for f in (tmp_path / "new" / "out").iterdir()) == ["curves.html", "curves.png"]


def test_runs_of_the_same_name_are_told_apart_by_their_paths(draw_page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/run", "b/run", "c"):
        make_run(tmp_path / name)
    draw_page("a/run", "b/run", "c", "c/../c")
    assert list(table_of(tmp_path / "curves.html")) == ["a/run", "b/run", "c"]


def test_an_unfinished_line_and_updates_left_out_are_no_hindrance(draw_page, tmp_path):
    lines = make_run(tmp_path / "run")
    broken = next(line for line in lines if line["event"] == "step" and line["step"] == 7)
    broken |= {"loss": None, "grad_norm": math.nan, "skipped": True}
    write_record(tmp_path / "run", lines)
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"event": "step", "st')
    draw_page(tmp_path / "run")
    found = traces_of(tmp_path / "run" / "curves.html")
    x, y = found["cross-entropy (nats)", "train, step"]
    assert x[np.isnan(y)].tolist() == [7], "the line has a gap there"
    x, y = found["learning rate", "update left out"]
    assert (x.tolist(), y.tolist()) == ([7], [broken["lr"]])


def test_charts_that_an_old_run_has_no_values_for_are_left_out(draw_page, tmp_path):
    make_run(tmp_path / "old", old=True)
    (tmp_path / "old" / "config.yaml").unlink()
    draw_page(tmp_path / "old")
    page = tmp_path / "old" / "curves.html"
    units = ["cross-entropy (nats)", "%", "learning rate", "training images/s", "% of the time"]
    assert list(dict.fromkeys(unit for unit, _ in traces_of(page))) == units
    make_run(tmp_path / "new")
    draw_page(tmp_path / "old", tmp_path / "new", "--out", tmp_path)
    found = traces_of(tmp_path / "curves.html")
    assert ("L2 norm", "new: step") in found and ("L2 norm", "old: step") not in found


def test_long_lines_are_thinned_without_losing_what_stands_out(draw_page, tmp_path):
    losses = np.random.default_rng(0).uniform(1, 2, 20_000)
    losses[[7_777, 15_555]] = 100, 0.001
    steps = [{"event": "step", "step": i, "loss": loss} for i, loss in enumerate(losses.tolist(), 1)]
    write_record(tmp_path / "run", steps)
    draw_page(tmp_path / "run")
    x, y = traces_of(tmp_path / "run" / "curves.html")["cross-entropy (nats)", "train, step"]
    assert len(x) <= 2 * BUCKETS + 2 and (np.diff(x) > 0).all()
    assert (x[0], x[-1]) == (1, 20_000)
    np.testing.assert_array_equal(y, losses[x.astype(int) - 1])
    assert {7_778, 15_556} <= set(x)


def test_training_draws_even_where_nothing_is_finite(tmp_path):
    write_record(tmp_path, [{"event": "epoch", "step": 2, "epoch": 1, "train_loss": math.nan}])
    with Image.open(plot_curves(tmp_path, "title")) as picture:
        picture.verify()


@pytest.mark.parametrize(
    ("record", "flags", "found"),
    [
        (None, [], "expected a run"),
        ("", [], "wait for its first step"),
        ('{"event": "step", "st', [], "wait for its first step"),
        ('["step", 1]\n', [], "found no finished line of a run"),
        ('{"event": "step", "step": 1, "loss": null}\n', [], "found no figure to draw"),
        ('{"event": "step", "step": 1, "loss": 1}\n', ["--x", "hours"], "found no times"),
        ('{"event": "step", "step": 1, "loss": 1}\n', ["--x=epoch"], "found no finished epoch"),
        ('{"event": "step", "step": 1, "loss": 1}\n', ["--images", 5], "without --schedule"),
        ('{"event": "step", "step": 1, "loss": 1}\n', ["--x", "days"], "x_axis: found days, expected 'step'"),
        ('{"event": "step", "step": 1, "loss": 1}\n', ["--schedule"], "runs: found"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_no_file(capfd, tmp_path, record, flags, found):
    run = tmp_path / "run"
    run.mkdir()
    if record is not None:
        (run / "metrics.jsonl").write_text(record)
    assert_one_line_error(run_here(capfd, "plot", run, *flags), found)
    assert {file.name for file in run.iterdir()} <= {"metrics.jsonl"}


def test_a_run_that_is_not_there_and_a_file_in_the_way_are_one_line(capfd, tmp_path):
    assert_one_line_error(run_here(capfd, "plot", tmp_path / "nix"), tmp_path / "nix", "no such folder")
    make_run(tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    assert_one_line_error(
        run_here(capfd, "plot", tmp_path / "run", "--out", file), "out: found the file", file
    )


@pytest.fixture
def schedule(capfd, tmp_path, monkeypatch, engine):
    """Draw a schedule with the session's engine, and give its title, its rates by epoch, and its marks."""
    monkeypatch.setattr(plot, "Engine", lambda *_args, **_kwargs: nullcontext(engine))

    def schedule(*flags):
        out = draw(capfd, "--schedule", *flags, "--out", tmp_path)
        with Image.open(tmp_path / "schedule.png") as picture:
            picture.verify()
        page = tmp_path / "schedule.html"
        found = {name: points for (_, name), points in traces_of(page).items()}
        x, y = found.pop("learning rate")
        marks = {name.split(":")[0]: (ax.item(), ay.item()) for name, (ax, ay) in found.items()}
        assert all(name in out for name in found)
        return re.search("<title>(.*)</title>", page.read_text())[1], x, y, marks

    return schedule


def test_a_schedule_is_drawn_over_the_epochs_of_the_run_it_is_for(schedule):
    title, x, y, marks = schedule(
        "--images", 105, "--batch-size", 10, "--epochs", 6, "--base-lr", 3, "--warmup-epochs", 1.5
    )
    assert title == "polynomial, 6 epochs of 105 images, 60 steps"
    step = np.arange(60)
    np.testing.assert_allclose(x, (step + 1) / 10)
    np.testing.assert_allclose(
        y, np.where(step < 15, 3 * (step + 1) / 16, 3 * (1 - (step - 15) / 45) ** 2), rtol=1e-12
    )
    assert marks == {
        "peak": (pytest.approx(1.6), pytest.approx(3)),
        "warm-up ends": (pytest.approx(1.5), pytest.approx(3 * 15 / 16)),
    }


def test_a_one_cycle_schedule_is_pytorchs(schedule):
    _, _, y, marks = schedule("onecycle", "--epochs", 4, "--base-lr", 0.5, "--dataset", "digits")
    steps = 4 * (1437 // 64)  # of the digits' training images
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, steps, cycle_momentum=False)
    expected = []
    for _ in range(steps - 1):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(y[:-1], expected, rtol=1e-9)
    assert list(marks) == ["peak"] and marks["peak"][1] == max(y), "there is no warm-up"


def test_a_recipe_is_drawn_for_imagenet_once_it_is_asked_for(schedule, capfd):
    title, x, _, marks = schedule("--recipe", "mlperf-8192", "--images", 1_281_167, "--epochs", 30)
    assert title == "polynomial, 30 epochs of 1,281,167 images (ImageNet-1k), 4,680 steps"
    assert x[-1] == 30 and marks["peak"][0] == pytest.approx(marks["warm-up ends"][0], abs=0.01)
    outcome = run_here(capfd, "plot", "--schedule", "--recipe", "mlperf-8192")
    assert_one_line_error(outcome, "images: found 1437 for a batch size of 8192", "--images")


def test_bad_combinations_with_a_schedule_are_one_line(capfd, tmp_path):
    for flags, *found in (
        (["--schedule", "square"], "schedule: found square, expected 'polynomial'"),
        (["--schedule", "--resume", tmp_path], "resume: found", "config.yaml"),
        (["--schedule", "--images", 0], "images: found 0"),
        (["--schedule=cosine", "--recipe", "nix"], "recipe: found nix"),
    ):
        assert_one_line_error(run_here(capfd, "plot", *flags), *found)


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


def test_a_browser_shows_a_schedule_with_both_axes(browser, schedule, tmp_path):
    schedule("cosine", "--images", 640, "--epochs", 6)
    show(browser, tmp_path / "schedule.html")
    assert len(drawn_lines(browser)) == 1
    text = browser.find_element("id", "charts").text
    for words in ("epoch", "step", "warm-up ends: 8.889 at step 8, epoch 0.8", "peak: 10 at step 9"):
        assert words in text
