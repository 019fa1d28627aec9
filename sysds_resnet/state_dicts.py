"""Which tensors of a checkpoint are the network: averages beside weights, and prefixes of names.

Training programs save more than a network: moving averages beside the weights, wrappers' names in front of
every name (`module.`, `_orig_mod.`, `model.`), optimizers, losses. Nothing here knows files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sysds_resnet.command_lines import python_command
from sysds_resnet.weight_containers import is_tensor
from sysds_resnet.weight_names import fail

_AVERAGE = re.compile(r"(^|[._])(ema|swa|average|averaged|avg|shadow)([._]|$)", re.IGNORECASE)
_COUNTERS = ("n_averaged", "decay", "num_updates", "updates", "step", "initted")  # in dicts of averages
# PyTorch puts these before names, whatever the model is: DataParallel, torch.compile, FSDP, checkpointing.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_INNER = re.compile(rf"((?:^|\.)layer[1-4](?:\.\d+)?)(?:\.(?:{'|'.join(_WRAPPERS)}))+(?=\.)")
# The prefix of a tensor of a ResNet's body, by torchvision's names or Hugging Face's.
_BODY = re.compile(
    r"((?:[^.]+\.)*?)(?:layer[1-4]\.\d+\..+|(?:conv1|bn1)\.[a-z_]+|(?:resnet\.)?(?:embedder\.|encoder\.stages\.).+)"
)
# A tensor that every ResNet has, by either.
_ANCHOR = re.compile(
    r"(?:.*\.)?(?:layer1\.0\.conv1|encoder\.stages\.0\.layers\.0\.layer\.0\.convolution)\.weight"
)
_DEPTH = 3  # of dicts in dicts that are searched


@dataclass(frozen=True)
class _Network:
    """Tensors of one network in a checkpoint.

    Attributes:
        entry: Names of the entries that lead to its dict.
        prefix: Of the names of its tensors, with a dot at the end.
        tensors: What its dict has by name, without those of other networks there.
        whole: Whether it has a tensor that every ResNet has.
    """

    entry: tuple[str, ...]
    prefix: str
    tensors: dict[Any, Any]
    whole: bool

    @property
    def label(self) -> str:
        """What users call it: its entry and prefix, without wrappers."""
        parts = [part for part in (*self.entry, *self.prefix.split(".")) if part]
        return ".".join([part for part in parts if part not in _WRAPPERS] or parts)

    @property
    def average(self) -> bool:
        """Whether it is a moving average, by its label."""
        return bool(_AVERAGE.search(self.label))


def choose_state_dict(
    entries: Mapping[Any, Any], key: str | None, source: str
) -> tuple[dict[Any, Any], list[str]]:
    """The tensors of the network in a checkpoint, under names without prefixes, and notes about the choice.

    Of weights and their moving average, it is the average.

    Args:
        entries: What a file holds: tensors, or dicts of them among other things.
        key: The entry or the prefix of names to take, where this is not to be decided here.
        source: What errors call the file.

    Raises:
        UserError: If there are several networks and none is the average, the key is none of them, or a prefix
            is in front of some names only.
    """
    found = [network for entry, tensors in _state_dicts(entries) for network in _networks(entry, tensors)]
    whole = [network for network in found if network.whole]
    network, notes = _choose(whole or found, key, source)
    tensors = network.tensors
    if network.average:
        tensors = {n: t for n, t in tensors.items() if str(n).rpartition(".")[2] not in _COUNTERS}
    inside, outside = {}, {}
    for name, tensor in tensors.items():
        (inside if str(name).startswith(network.prefix) else outside)[name] = tensor
    strays = [name for name in tensors if _body_prefix(name) not in (None, network.prefix)]
    if key is None and strays:
        expected = f"{network.prefix!r} in front of all names" if network.prefix else "names without a prefix"
        fail(
            source,
            f"has {strays[0]!r} and {len(strays) - 1} more tensors with another prefix than the other "
            f"{len(tensors) - len(strays)}, expected {expected}; save the state_dict() of one network",
        )
    if network.prefix and key is None and set(network.prefix[:-1].split(".")) - set(_WRAPPERS):
        notes.append(f"{source}: left out {network.prefix!r} in front of the names of tensors")
    plain = {_plain(name, network.prefix): tensor for name, tensor in inside.items()}
    # A final layer may stand beside its backbone. Whatever else is there, the check of names will name.
    return plain if key is not None else outside | plain, notes


def _state_dicts(
    entries: Mapping[Any, Any], entry: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """The dicts of tensors in a checkpoint, and the entries that lead there; if none, the whole."""
    inner = []
    if len(entry) < _DEPTH:
        for name, value in entries.items():
            if isinstance(value, Mapping) and isinstance(name, str) and "optim" not in name.lower():
                inner += _state_dicts(value, (*entry, name))
    yield from inner
    named = [name for name, value in entries.items() if isinstance(name, str) and is_tensor(value)]
    # numbers beside a state dict, such as the best accuracy so far, may be tensors too
    if any(_body_prefix(name) is not None for name in named) or (not inner and (named or not entry)):
        yield entry, entries


def _networks(entry: tuple[str, ...], tensors: Mapping[Any, Any]) -> Iterator[_Network]:
    """The networks in a dict of tensors, told apart by the prefixes of their names: usually one."""
    prefixes = {prefix for name in tensors if (prefix := _body_prefix(name)) is not None}
    anchored = dict.fromkeys(_body_prefix(name) for name in tensors if _ANCHOR.fullmatch(str(_plain(name))))
    several = list(anchored) or (list(prefixes) if len(prefixes) == 1 else [""])
    for prefix in several:
        own = {
            name: tensor
            for name, tensor in tensors.items()
            if max((p for p in several if str(name).startswith(p)), key=len, default=prefix) == prefix
        }
        yield _Network(entry, prefix, own, bool(anchored))


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
            f"{python_command('convert', source, 'DST.safetensors', '--key', 'NAME')}",
        )
    other = next(network.label for network in found if not network.average)
    return averages[0], [
        f"{source}: took {averages[0].label!r}, the averaged weights, of {labels}; for others run "
        f"{python_command('convert', source, 'DST.safetensors', '--key', other)}"
    ]


def _body_prefix(name: object) -> str | None:
    """What is in front of a name of a ResNet's body; None for other names."""
    match = _BODY.fullmatch(str(_plain(name)))
    return None if match is None else match[1]


def _plain(name: object, prefix: str = "") -> Any:
    """A name without a prefix and without wrappers of stages and blocks; what is no text as it is."""
    return _INNER.sub(r"\1", name.removeprefix(prefix)) if isinstance(name, str) else name
