"""Tensors and modules of torch as bytes: what a module computes follows from its class, its settings and its state.

Nothing here imports torch: where it is not imported, nothing is a tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

from whiteboard.ops.fingerprint.classes import write_class_of_module
from whiteboard.ops.fingerprint.walk import Walk
from whiteboard.types import Blas

_HOOKS: Final = "hooks"
_TABLES: Final = ("_parameters", "_buffers", "_modules")
_KEPT: Final = frozenset(
    (*_TABLES, "_non_persistent_buffers_set", "_compiled_call_impl", "_flat_weights", "_flat_weight_refs")
)
"""What modules keep for themselves; their hooks are told by their names."""

_RANDOM: Final = "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout RReLU"
_CHANGING: Final = "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d"


def torch_if_imported() -> ModuleType | None:
    """Return torch where somebody has imported it."""
    return sys.modules.get("torch")


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor, which may be a parameter of a module."""
    torch = torch_if_imported()
    return torch is not None and isinstance(value, torch.Tensor)


def is_module(value: object) -> bool:
    """Whether a value is an ``nn.Module``."""
    torch = torch_if_imported()
    return torch is not None and isinstance(value, torch.nn.Module)


def is_word(value: object) -> bool:
    """Whether a value is one of torch's constants: a dtype, a device, a layout, a memory format."""
    torch = torch_if_imported()
    return torch is not None and isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format))


def refused(tensor: Any) -> str:
    """Return why a tensor has no bytes here; empty where it has."""
    torch = torch_if_imported()
    assert torch is not None  # it is a tensor
    if tensor.device.type != "cpu":
        return f"a tensor on {tensor.device}: move it to the CPU by .cpu()"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return f"a tensor of layout {tensor.layout}{' that is quantized' * tensor.is_quantized}: make it dense"
    return ""


def tensor_parts(tensor: Any) -> tuple[str, bytes]:
    """Return what a tensor is (dtype, shape, strides, whether it requires gradients), and its bytes in C order."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    told = (str(tensor.dtype), tuple(tensor.shape), tensor.stride(), str(tensor.device), tensor.requires_grad)
    flat = plain.contiguous().reshape(-1)
    return repr(told), flat.view(sys.modules["torch"].uint8).numpy().tobytes() if flat.numel() else b""


def restless(module: Any) -> str:
    """Return why a module does not give the same twice; empty where nothing of its own speaks against it."""
    nn = sys.modules["torch"].nn
    if any(_HOOKS in name and held for name, held in vars(module).items()):
        return "has hooks"
    if isinstance(module, (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)):
        return "draws random numbers"
    if not module.training:
        return ""
    dropout = getattr(module, "dropout", 0)
    if isinstance(module, _named(nn, _RANDOM)) or (isinstance(dropout, float) and dropout > 0):
        return "is in training mode, where it draws random numbers: call .eval()"
    if isinstance(module, _named(nn, _CHANGING)) and getattr(module, "track_running_stats", True):
        return "is in training mode, where it changes itself: call .eval()"
    return ""


def _named(nn: Any, names: str) -> tuple[type, ...]:
    return tuple(getattr(nn, name) for name in names.split())


def tables(module: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the parameters, buffers and modules that a module holds: what each is called, and which there are."""
    for name in _TABLES:
        yield name, vars(module)[name]


def hooks(module: Any) -> Iterator[str]:
    """Yield the names under which a module keeps its hooks, of which there are none."""
    for name, held in vars(module).items():
        if _HOOKS in name and isinstance(held, dict):
            yield name


def attributes(module: Any) -> Iterator[str]:
    """Yield the names of what else was set on a module: its sizes, its activation, whether it is in training."""
    for name in sorted(vars(module)):
        if name not in _KEPT and _HOOKS not in name:
            yield name


class Tensor:
    """The contents of a tensor, which are kept and compared: whoever trains a module writes into them."""

    __slots__ = ("_kept", "_tensor")

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor
        self._kept = tensor_parts(tensor)

    def changed(self) -> bool:
        return bool(refused(self._tensor)) or tensor_parts(self._tensor) != self._kept


class Listed:
    """The items of a list or a set that a module holds."""

    __slots__ = ("_items", "_kept")

    def __init__(self, items: Any) -> None:
        self._items, self._kept = items, list(items)

    def changed(self) -> bool:
        return len(self._items) != len(self._kept) or any(
            a is not b for a, b in zip(self._items, self._kept, strict=True)
        )


def write(walk: Walk, value: Any, where: str, *_: object) -> bool:
    """Write a value of torch's, of which there is none where nobody has imported it."""
    if is_tensor(value):
        _tensor(walk, value, where)
    elif is_module(value):
        walk.reaches(Blas.ANY)
        if not walk.again(value):
            _torch_module(walk, value, where)
    elif is_word(value):
        walk.put("of torch", type(value).__name__, repr(value))
    else:
        return False
    return True


def _tensor(walk: Walk, value: Any, where: str) -> None:
    if reason := refused(value):
        walk.refuse(f"{where} is {reason}")
    walk.put("tensor", *tensor_parts(value))
    walk.value(type(value), f"the class of {where}")
    walk.watch.contents(Tensor(value))


def _torch_module(walk: Walk, module: Any, where: str) -> None:
    """Write a module as it is: its class but for how one is made, what was set on it, and all that it holds."""
    walk.watch.all_of(vars(module))
    settings = [(key, walk.watch.binding(vars(module), key)) for key in attributes(module)]
    for key in hooks(module):
        walk.watch.all_of(vars(module)[key])
    if reason := restless(module):
        walk.refuse(f"{where}, a {type(module).__name__}, {reason}")
    walk.put("torch module")
    write_class_of_module(walk, type(module), where)
    for key, value in settings:
        walk.put("attribute", key)
        _edited(walk, value, f"{where}.{key}")
    for key, table in tables(module):
        walk.put(key, str(len(table)))
        walk.watch.all_of(table)
        for name in table:
            walk.put("name", name)
            walk.value(walk.watch.binding(table, name), f"{where}.{name}")


def _edited(walk: Walk, value: Any, where: str) -> None:
    """Write a value that may hold lists, sets and dicts; whoever edits them is noticed."""
    if type(value) is dict:
        walk.put("dict", str(len(value)))
        walk.watch.all_of(value)
        for key in value:
            walk.value(key, f"a key of {where}")
            _edited(walk, walk.watch.binding(value, key), f"{where}[{key!r}]")
    elif type(value) is list or type(value) is set:
        walk.watch.contents(Listed(value))
        walk.put(type(value).__name__, str(len(value)))
        for item in value if type(value) is list else [frozenset(value)]:
            _edited(walk, item, f"an item of {where}")
    else:
        walk.value(value, where)
