"""Made-up runs and schedules, drawn by the plot command, and what their pages hold."""

import base64
import html
import json
import math
import re

import numpy as np
import yaml
from command_line import run_here
from PIL import Image

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


def draw_schedule(capfd, folder, *flags):
    """Draw a schedule, and give its title, its rates by epoch, and its marks."""
    out = draw(capfd, "--schedule", *flags, "--out", folder)
    with Image.open(folder / "schedule.png") as picture:
        picture.verify()
    page = folder / "schedule.html"
    found = {name: points for (_, name), points in traces_of(page).items()}
    x, y = found.pop("learning rate")
    marks = {name.split(":")[0]: (ax.item(), ay.item()) for name, (ax, ay) in found.items()}
    assert all(name in out for name in found)
    return re.search("<title>(.*)</title>", page.read_text())[1], x, y, marks
