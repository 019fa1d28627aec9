"""Which tensors of other programs' checkpoints are the network: averages, prefixes, what is beside them."""

import argparse

import pytest
import torch
from refusals import message
from small_weights import prefixed, tiny

from sysds_resnet.network.weights.state_dicts import choose_state_dict

pytestmark = pytest.mark.usefixtures("wide")


def chosen(entries, key=None):
    tensors, notes = choose_state_dict(entries, key, "w.pth")
    assert all("\n" not in note for note in notes)
    return {name: float(tensor.flatten()[0]) for name, tensor in tensors.items()}, notes


def same(value=1.0):
    return {name: value for name in tiny()}


# Averages


@pytest.mark.parametrize("raw", ["model", "state_dict", "net", "model_state_dict"])
@pytest.mark.parametrize(
    ("average", "inner"),
    [
        ("model_ema", ""),
        ("state_dict_ema", ""),
        ("ema_state_dict", ""),
        ("ema", ""),
        ("ema_model", "module."),
        ("model_ema", "module.module."),
        ("swa_model", "module._orig_mod."),
        ("averaged_model", ""),
        ("params_ema", ""),
    ],
)
def test_the_average_is_taken_and_the_other_can_be(raw, average, inner):
    extra = {"n_averaged": torch.tensor(7)} if inner else {}
    entries = {
        raw: prefixed("module.", tiny()),
        average: extra | prefixed(inner, tiny(2.0)),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
        "best_acc1": torch.tensor(75.0),
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1),
    }
    found, [note] = chosen(entries)
    assert found == same(2.0)
    assert f"took {average!r}, the averaged weights" in note and f"--key {raw}" in note
    assert chosen(entries, raw) == (same(), [])
    assert chosen(entries, average) == (same(2.0), [])
    assert f"'other' is none of the networks in it, which are {raw!r}, {average!r}" in message(
        chosen, entries, "other"
    )


@pytest.mark.parametrize(
    ("average", "raw"),
    [("model_ema.module.", "model."), ("ema_model.", "net."), ("ema.", ""), ("model_ema.", "module.model.")],
)
def test_an_average_beside_weights_in_one_dict_is_taken(average, raw):
    entries = prefixed(raw, tiny()) | prefixed(average, tiny(2.0))
    for wrapped in (entries, {"state_dict": entries, "epoch": 1}):
        found, notes = chosen(wrapped)
        assert found == same(2.0)
        assert "the averaged weights" in notes[0]
        key = notes[0].rpartition("--key ")[2].strip("'")
        assert chosen(wrapped, key)[0] == same()


def test_an_average_deep_in_a_checkpoint_is_found():
    callback = {"callbacks": {"EMA": {"ema_state_dict": tiny(2.0), "decay": 0.99}}, "state_dict": tiny()}
    found, [note] = chosen(callback)
    assert found == same(2.0) and "callbacks.EMA.ema_state_dict" in note
    assert chosen(callback, "state_dict")[0] == same()


def test_several_networks_without_an_average_are_refused():
    for entries in (
        {"student": tiny(), "teacher": tiny(2.0)},
        prefixed("student.", tiny()) | prefixed("teacher.", tiny(2.0)),
    ):
        text = message(chosen, entries)
        assert "holds 2 networks ('student', 'teacher')" in text and "--key" in text
        assert chosen(entries, "teacher")[0] == same(2.0)


def test_other_dicts_of_tensors_are_no_networks():
    entries = {"model": tiny(), "criterion": {"weight": torch.ones(3)}, "scaler": {"scale": torch.ones(1)}}
    assert chosen(entries) == (same(), [])


# Prefixes


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "module.module.",
        "_fsdp_wrapped_module._orig_mod.",
    ],
)
def test_wrappers_are_dropped_from_all_names(prefix):
    assert chosen(prefixed(prefix, tiny())) == (same(), [])
    assert chosen({"state_dict": prefixed(prefix, tiny())}) == (same(), [])


@pytest.mark.parametrize(
    "prefix",
    ["model.", "net.", "backbone.", "model.backbone.", "module.model._orig_mod.", "encoder.", "resnet."],
)
def test_other_prefixes_are_dropped_and_a_note_says_so(prefix):
    found, [note] = chosen({"state_dict": prefixed(prefix, tiny())})
    assert found == same()
    assert f"w.pth: left out {prefix!r} in front of the names of tensors" in note


def test_wrappers_of_stages_and_blocks_are_dropped():
    names = {
        "layer1.0.conv1.weight": "layer1._orig_mod.0.conv1.weight",
        "layer4.1.bn2.bias": "layer4.1.module.bn2.bias",
    }
    inner = {names.get(name, name): tensor for name, tensor in tiny().items()}
    assert chosen(inner) == (same(), [])
    assert chosen(prefixed("module.", inner)) == (same(), [])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
@pytest.mark.parametrize("wrapped", ["layer4.1.bn2.bias", "layer1.0.conv1.weight", "conv1.weight"])
def test_a_prefix_of_some_names_is_refused(prefix, wrapped):
    mixed = {(prefix if name == wrapped else "") + name: tensor for name, tensor in tiny().items()}
    text = message(chosen, mixed)
    assert "more tensors with another prefix" in text and "save the state_dict()" in text


def test_a_final_layer_beside_its_backbone_is_kept():
    entries = prefixed("backbone.", tiny()) | {
        "classifier.weight": torch.ones(3, 2),
        "fc.bias": torch.ones(3),
    }
    found, _ = chosen(entries)
    assert set(found) == {*tiny(), "classifier.weight", "fc.bias"}


def head(name, value=1.0, classes=3):
    """A linear layer for the features of `tiny`."""
    return {f"{name}.weight": torch.full((classes, 2), value), f"{name}.bias": torch.full((classes,), value)}


@pytest.mark.parametrize("outer", ["", "net.", "module."])
def test_the_final_layer_outside_a_backbone_goes_before_that_inside(outer):
    entries = prefixed(outer, prefixed("backbone.", tiny() | head("fc")) | head("fc", 2.0))
    found, notes = chosen({"state_dict": entries})
    assert found == same() | {"fc.weight": 2.0, "fc.bias": 2.0}
    assert f"took the final layer '{outer}fc', not the backbone's '{outer}backbone.fc'" in notes[1]
    del entries[f"{outer}fc.bias"]  # the other layer's bias is not taken for it
    assert chosen(entries)[0].keys() == {*tiny(), "fc.weight"}
    found, notes = chosen(prefixed("backbone.", tiny() | head("fc")) | head("other"))
    assert {"other.weight", "other.bias", "fc.weight"} < found.keys() and len(notes) == 1


@pytest.mark.parametrize(
    ("raw", "average", "keys"),
    [
        (
            "state_dict.",
            "ema_state_dict.",
            {"state_dict": 1.0, "state_dict.backbone": 1.0, "ema_state_dict": 2.0},
        ),
        (".net.", ".ema.", {"net": 1.0, "net.backbone": 1.0, "ema": 2.0, "ema.backbone": 2.0}),
        (".", ".ema.", {"backbone": 1.0, "ema": 2.0}),
    ],
)
def test_each_network_keeps_its_own_final_layer(raw, average, keys):
    entries = {}
    for place, value in ((raw, 1.0), (average, 2.0)):
        entry, _, prefix = place.partition(".")
        tensors = prefixed(prefix, prefixed("backbone.", tiny(value)) | head("head.fc", value))
        (entries.setdefault(entry, {}) if entry else entries).update(tensors)
    expected = {key: same(value) | {f"head.fc.{part}": value for part in ("weight", "bias")}
                for key, value in {None: 2.0, **keys}.items()}  # fmt: skip
    assert {key: chosen(entries, key)[0] for key in expected} == expected


def test_what_stands_beside_several_networks_is_left_out_with_a_note():
    entries = prefixed("query.", tiny()) | prefixed("ema.", tiny(2.0)) | {"queue": torch.ones(3)}
    found, notes = chosen(entries)
    assert found == same(2.0) and "left out 'queue' beside the network" in notes[-1]


@pytest.mark.parametrize("prefix", ["", "model.", "net.backbone."])
def test_losses_and_metrics_are_left_out_with_a_note(prefix):
    foreign = {"criterion.weight": torch.ones(3), "train_acc.total": torch.tensor(1.0)}
    foreign |= {"data_preprocessor.mean": torch.ones(3, 1, 1)} | ({"scale": torch.ones(2)} if prefix else {})
    found, notes = chosen(prefixed(prefix, tiny() | head("fc")) | foreign)
    assert found == same() | {"fc.weight": 1.0, "fc.bias": 1.0}
    assert f"left out 'criterion.weight' and {len(foreign) - 1} more tensors" in notes[-1]


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"model": t}])
@pytest.mark.parametrize("counter", ["n_averaged", "steps"])
def test_counters_of_averages_are_no_tensors_of_the_network(wrap, counter):
    assert chosen(wrap({counter: torch.tensor(3), **prefixed("module.", tiny())})) == (same(), [])


def test_an_average_without_the_buffers_of_norms_gets_the_others():
    parameters = {name: tensor for name, tensor in tiny(2.0).items() if "running" not in name}
    entries = {"model": tiny(), "ema": {"decay": 0.9, "shadow": parameters}}
    found, [_, note] = chosen(entries)
    assert found == same(2.0) | {"bn1.running_mean": 1.0}
    assert "'ema.shadow' has no means and variances of norms; took those of 'model'" in note
    del parameters["layer4.1.bn2.bias"]
    assert "bn1.running_mean" not in chosen(entries)[0]


def test_averages_in_lists():
    found, [note] = chosen({"model": tiny(), "ema": {"shadow_params": list(tiny(2.0).values())}})
    assert found == same() and "'ema.shadow_params' is a list of tensors without names" in note
    found, [note] = chosen({"model": tiny(), "ema_models": [tiny(2.0)]})
    assert found == same(2.0) and "took 'ema_models', the averaged weights" in note
    several = {"model": tiny(), "ema_models": [tiny(2.0), tiny(3.0)]}
    assert "'ema_models.0', 'ema_models.1'" in message(chosen, several)
    assert chosen(several, "ema_models.1")[0] == same(3.0)


def test_mmengine_has_the_average_in_state_dict():
    raw = {
        "steps": torch.tensor(3),
        **prefixed("module.backbone.", tiny()),
        **prefixed("module.", head("head")),
    }
    average = prefixed("backbone.", tiny(2.0)) | head("head", 2.0)
    found, notes = chosen({"meta": {}, "state_dict": average, "ema_state_dict": raw})
    assert found == same(2.0) | {"head.weight": 2.0, "head.bias": 2.0}
    assert "took 'state_dict.backbone', the averaged weights" in notes[0]
    assert "--key ema_state_dict.backbone" in notes[0]


@pytest.mark.parametrize("name", ["optimal_model", "optimus", "optimized_weights"])
def test_only_optimizers_are_not_searched(name):
    entries = {"optimizer": {"state": tiny()}, "optim": tiny(), "g_optimizer": tiny()}
    assert chosen(entries | {name: tiny(2.0)}) == (same(2.0), [])
