"""The choice of the tensors that are the network in a checkpoint, where there is more beside them.

Training programs save more than a network: moving averages beside the weights, wrappers' names in front of
every name (`module.`, `_orig_mod.`, `model.`), optimizers, losses. Nothing here reads files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sysds_resnet.network.names import fail
from sysds_resnet.network.weights.containers import is_tensor
from sysds_resnet.system.command_lines import own_command

_AVERAGE = re.compile(r"(^|[._])(ema|swa|average|averaged|avg|shadow)([._]|$)", re.IGNORECASE)
# Numbers that programs keep beside averages.
_COUNTERS = ("n_averaged", "decay", "num_updates", "updates", "step", "steps", "initted")
# Words in the names of entries of optimizers, which hold no network's weights.
_OPTIMIZER = re.compile(r"(^|[._])optim(izers?)?([._]|$)", re.IGNORECASE)
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # those of norms, which some averages lack
# The mean of pixels, in a layer that normalizes them.
_MEAN = re.compile(r"(((.*\.)?(data_preprocessor|norm(alize|alizer|alization)?)|\d+)\.)?mean")
# Words in the names of other things that programs keep beside a network.
_FOREIGN = re.compile(r"(^|[._])(criterion|loss(es)?|metrics?|acc(uracy)?|data_preprocessor)([._]|$)")
# PyTorch puts these in front of names, for any model: DataParallel, torch.compile, FSDP, checkpointing.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_INNER = re.compile(rf"((?:^|\.)layer[1-4](?:\.\d+)?)(?:\.(?:{'|'.join(_WRAPPERS)}))+(?=\.)")
# A tensor of a ResNet's body by torchvision's or Hugging Face's name; the group is the prefix in front.
_BODY = re.compile(
    r"((?:[^.]+\.)*?)(?:layer[1-4]\.\d+\..+|(?:conv1|bn1)\.[a-z_]+|(?:resnet\.)?(?:embedder\.|encoder\.stages\.).+)"
)
# A tensor that every ResNet has, by its name in torchvision or Hugging Face.
_ANCHOR = re.compile(
    r"(?:.*\.)?(?:layer1\.0\.conv1|encoder\.stages\.0\.layers\.0\.layer\.0\.convolution)\.weight"
)
_DEPTH = 3  # how deep dicts within dicts are searched


@dataclass(frozen=True)
class _Network:
    """The tensors of one network in a checkpoint.

    Attributes:
        entry: The names of the entries that lead to the network's dict.
        prefix: The prefix of the names of its tensors, with a dot at the end.
        tensors: The items of the dict by name, without those of other networks there.
        whole: Whether there is a tensor among them that every ResNet has.
        shared: The names in the dict that may belong to any of the networks there.
    """

    entry: tuple[str, ...]
    prefix: str
    tensors: dict[Any, Any]
    whole: bool
    shared: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name that users call the network by: its entry and prefix, without wrappers."""
        parts = [part for part in (*self.entry, *self.prefix.split(".")) if part]
        return ".".join([part for part in parts if part not in _WRAPPERS] or parts)

    @property
    def average(self) -> bool:
        """Whether the network is a moving average, judged by its label."""
        return bool(_AVERAGE.search(self.label))


def choose_state_dict(
    entries: Mapping[Any, Any], key: str | None, source: str
) -> tuple[dict[Any, Any], list[str]]:
    """Picks the tensors of the network in a checkpoint, by names without prefixes; notes tell of the choice.

    Between weights and their moving average, it picks the average.

    Args:
        entries: The content of a file: tensors, or dicts of them among other things.
        key: The entry or the prefix of names to take; None to have it chosen here.
        source: What errors call the file.

    Raises:
        UserError: If there are several networks and not just one is an average, the key does not name one of
            them, or a prefix is in front of some names only.
    """
    found = [network for entry, tensors in _state_dicts(entries) for network in _networks(entry, tensors)]
    found = [network for network in found if network.whole] or found
    network, notes = _choose(found, key, source)
    if key is None:
        if set(network.prefix.split(".")) - {"", *_WRAPPERS}:
            notes.append(f"{source}: left out {network.prefix!r} in front of the names of tensors")
        if unused := next(_lists_of_tensors(entries), None):
            notes.append(f"{source}: {unused!r} is a list of tensors without names, and is not used")
    tensors, said = _tensors_of(network, key, source)
    others = [other for other in found if not other.average]
    if network.average and len(others) == 1 and not any(map(_is_buffer, tensors)):
        theirs, _ = _tensors_of(others[0], key, source)
        buffers = {name: tensor for name, tensor in theirs.items() if _is_buffer(name)}
        if theirs.keys() == tensors.keys() | buffers.keys():
            tensors |= buffers
            text = f"has no means and variances of norms; took those of {others[0].label!r}"
            said.append(f"{source}: {network.label!r} {text}")
    return tensors, notes + said


def _tensors_of(network: _Network, key: str | None, source: str) -> tuple[dict[Any, Any], list[str]]:
    """Gives the tensors of a network by plain names, with those of it that stand beside it, and notes.

    Beside it may stand its final layer, and the mean and std of a layer that normalizes pixels before it.
    """
    tensors = {name: tensor for name, tensor in network.tensors.items() if not _is_counter(name, tensor)}
    layers = [str(name).removesuffix("mean") for name in tensors if _MEAN.fullmatch(str(name))]
    layer = next((layer for layer in layers if f"{layer}std" in tensors), None)
    pixels = {} if layer is None else {part: tensors.pop(layer + part) for part in ("mean", "std")}
    strays = [name for name in tensors if _body_prefix(name) not in (None, network.prefix)]
    if key is None and strays:
        expected = f"{network.prefix!r} in front of all names" if network.prefix else "names without a prefix"
        fail(
            source,
            f"has {strays[0]!r} and {len(strays) - 1} more tensors with another prefix than the other "
            f"{len(tensors) - len(strays)}, expected {expected}; save the state_dict() of one network",
        )
    foreign = [name for name in tensors if _FOREIGN.search(str(name).removeprefix(network.prefix))]
    others = dict.fromkeys([*foreign, *strays])
    own = {
        n: tensor for n, tensor in tensors.items() if str(n).startswith(network.prefix) and n not in others
    }
    inside = {_plain(name, network.prefix): tensor for name, tensor in own.items()}
    complete = any(_is_matrix(name, tensor) and _body_prefix(name) is None for name, tensor in inside.items())
    beside, left, notes = {}, [*network.shared, *foreign], []
    for name in tensors:
        short = _plain(name, _parent(network.prefix))
        if name in own or name in others:
            continue
        # what could be a layer of the network is kept, so that the check of names reports it
        weight = f"{str(name).rpartition('.')[0]}.weight"
        if complete and short not in inside and not _is_matrix(weight, tensors.get(weight)):
            left.append(name)
        else:
            beside[short] = tensors[name]
    if replaced := {str(name).rpartition(".")[0] for name in beside if name in inside}:
        # the layer beside it was trained on the backbone's features; the backbone's own is a remnant
        inside = {n: tensor for n, tensor in inside.items() if str(n).rpartition(".")[0] not in replaced}
        layer = min(replaced)
        notes.append(
            f"{source}: took the final layer {_parent(network.prefix) + layer!r}, not the backbone's "
            f"{network.prefix + layer!r}"
        )
    if left:
        more = f" and {len(left) - 1} more tensors" if len(left) > 1 else ""
        notes.append(f"{source}: left out {left[0]!r}{more} beside the network")
    return beside | inside | pixels, notes


def _is_counter(name: object, tensor: object) -> bool:
    """Tells whether an item is one of the numbers that programs keep beside averages."""
    return str(name).rpartition(".")[2] in _COUNTERS and math.prod(getattr(tensor, "shape", ())) == 1


def _is_matrix(name: object, tensor: object) -> bool:
    """Tells whether a tensor may be the weights of a linear layer or a convolution."""
    return str(name).endswith(".weight") and len(getattr(tensor, "shape", ())) > 1


def _is_buffer(name: object) -> bool:
    return str(name).rpartition(".")[2] in _BUFFERS


def _parent(prefix: str) -> str:
    """Gives the prefix of the module that holds the network with this prefix, and perhaps its final layer."""
    parts = prefix.split(".")[:-1]
    while parts and parts[-1] in _WRAPPERS:
        parts.pop()
    return "".join(f"{part}." for part in parts[:-1])


def _inner(
    entries: Mapping[Any, Any], entry: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any] | list[Any]]]:
    """Gives the dicts and lists in an entry, but those of optimizers; of a list of dicts, each dict."""
    for name, value in entries.items():
        if not isinstance(name, str) or _OPTIMIZER.search(name) or len(entry) >= _DEPTH:
            continue
        items = list(value) if isinstance(value, list | tuple) else None
        if items and all(isinstance(item, Mapping) for item in items):
            for i, item in enumerate(items):
                yield (*entry, name if len(items) == 1 else f"{name}.{i}"), item
        elif items or isinstance(value, Mapping):
            yield (*entry, name), items or value


def _lists_of_tensors(entries: Mapping[Any, Any], entry: tuple[str, ...] = ()) -> Iterator[str]:
    """Finds averages that a checkpoint has as lists of tensors, which do not say what each tensor is."""
    for place, value in _inner(entries, entry):
        label = ".".join(place)
        if isinstance(value, Mapping):
            yield from _lists_of_tensors(value, place)
        elif _AVERAGE.search(label) and all(map(is_tensor, value)):
            yield label


def _state_dicts(
    entries: Mapping[Any, Any], entry: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Finds the dicts of tensors in a checkpoint, with the entries that lead there; if none, the whole."""
    dicts = [(place, value) for place, value in _inner(entries, entry) if isinstance(value, Mapping)]
    inner = [found for place, value in dicts for found in _state_dicts(value, place)]
    yield from inner
    named = [name for name, value in entries.items() if isinstance(name, str) and is_tensor(value)]
    # numbers beside a state dict, such as the best accuracy so far, may be tensors too
    if any(_body_prefix(name) is not None for name in named) or (not inner and (named or not entry)):
        yield entry, entries


def _networks(entry: tuple[str, ...], tensors: Mapping[Any, Any]) -> Iterator[_Network]:
    """Finds the networks in a dict of tensors, told apart by the prefixes of names; usually there is one."""
    prefixes = {prefix for name in tensors if (prefix := _body_prefix(name)) is not None}
    anchored = dict.fromkeys(_body_prefix(name) for name in tensors if _ANCHOR.fullmatch(str(_plain(name))))
    several = list(anchored) or (list(prefixes) if len(prefixes) == 1 else [""])
    owners = {name: _owner(str(name), several) for name in tensors}
    shared = tuple(name for name, owner in owners.items() if owner is None)
    for prefix in several:
        own = {name: tensor for name, tensor in tensors.items() if owners[name] == prefix}
        yield _Network(entry, prefix, own, bool(anchored), shared)


def _owner(name: str, prefixes: list[str]) -> str | None:
    """Gives the prefix of the network that a name belongs to; None if it may belong to several."""
    if len(prefixes) == 1:
        return prefixes[0]
    if inside := [prefix for prefix in prefixes if name.startswith(prefix)]:
        return max(inside, key=len)
    beside = [prefix for prefix in prefixes if name.startswith(_parent(prefix))]
    nearest = max((_parent(prefix) for prefix in beside), key=len, default="")
    owners = [prefix for prefix in beside if _parent(prefix) == nearest]
    return owners[0] if len(owners) == 1 else None


def _choose(found: list[_Network], key: str | None, source: str) -> tuple[_Network, list[str]]:
    labels = ", ".join(repr(network.label) for network in found)
    if key is not None:
        key = key.strip(".")
        chosen = [n for n in found if n.label == key or n.prefix == f"{key}."]
        chosen = chosen or [n for n in found if f".{key}." in f".{n.label}."]
        if len(chosen) != 1:
            what = "several" if chosen else "none"
            fail(source, f"{key!r} is {what} of the networks in it, which are {labels}; give another --key")
        return chosen[0], []
    averages = [network for network in found if network.average]
    if len(found) == 1:
        return found[0], []
    if len(averages) != 1:
        fail(
            source,
            f"holds {len(found)} networks ({labels}), expected one, or one and its average; choose one by "
            f"{own_command('convert', source, 'DST.safetensors', '--key', 'NAME')}",
        )
    average, other = averages[0], next(network for network in found if not network.average)
    if swapped := next((network for network in found if _swapped(average, network)), None):
        average, other = swapped, average
    return average, [
        f"{source}: took {average.label!r}, the averaged weights, of {labels}; for others run "
        f"{own_command('convert', source, 'DST.safetensors', '--key', other.label)}"
    ]


def _swapped(named: _Network, other: _Network) -> bool:
    """Tells whether the other network is the average: mmengine's EMAHook swaps the two entries on saving."""
    entries = named.entry[-1:] + other.entry[-1:] == ("ema_state_dict", "state_dict")
    return entries and "steps" in named.tensors and named.prefix.startswith("module.")


def _body_prefix(name: object) -> str | None:
    """Gives what is in front of the name of a tensor of a ResNet's body; None for other names."""
    match = _BODY.fullmatch(str(_plain(name)))
    return None if match is None else match[1]


def _plain(name: object, prefix: str = "") -> Any:
    """Gives a name without a prefix and without wrappers of stages and blocks; other keys as they are."""
    return _INNER.sub(r"\1", name.removeprefix(prefix)) if isinstance(name, str) else name
