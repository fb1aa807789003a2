"""What the names in a pickle stand for: functions of ours that make plain data, never what another module calls so."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.common.safe_pickle import arrays
from tasks.common.safe_pickle.budget import CONTAINER, TABLE, Budget
from tasks.common.safe_pickle.keys import check_keys
from tasks.common.safe_pickle.refusals import Forbidden, Malformed

DICTS = (dict, OrderedDict, defaultdict)


@dataclass(frozen=True, eq=False)
class Name:
    """Stands for what a pickle calls `label`. call: makes a value of a tuple of arguments; None where only other calls
    need the name. new: the same for an object that is made without its class's `__init__`."""

    label: str
    call: Callable[[tuple, Budget], Any] | None = None
    new: Callable[[tuple, Budget], Any] | None = None


def find(module: Any, name: Any) -> Name:
    """Raises Forbidden where nothing is known by that name."""
    if type(module) is not str or type(name) is not str:
        raise Malformed("it has a name that is no text")
    found = _NAMES.get((module, name)) or _HARMLESS.get(name)
    if found is None:
        raise Forbidden(ascii(f"{module}.{name}"[:200])[1:-1])
    return found


def _refused(arguments: tuple) -> Malformed:
    return Malformed("it calls a known name in an unknown way")


def _one(arguments: tuple, *kinds: type) -> Any:
    """The only argument, of one of these kinds; or none, which is the kinds' first's empty value."""
    if not arguments:
        return kinds[0]()
    if len(arguments) != 1 or type(arguments[0]) not in kinds:
        raise _refused(arguments)
    return arguments[0]


def _set_of(kind: type) -> Callable[[tuple, Budget], Any]:
    def make(arguments: tuple, budget: Budget) -> Any:
        members = list(_one(arguments, list, tuple, set, frozenset))
        budget.spend(TABLE + CONTAINER * len(members))
        check_keys(members, budget)
        return kind(members)

    return make


def _copy_of(kind: type, *kinds: type) -> Callable[[tuple, Budget], Any]:
    def make(arguments: tuple, budget: Budget) -> Any:
        content = _one(arguments, *kinds)
        budget.spend(CONTAINER + 8 * len(content))
        return kind(content)

    return make


def _encode(arguments: tuple, budget: Budget) -> bytes:
    """Bytes as pickles before protocol 3 hold them."""
    text, encoding = arguments if len(arguments) == 2 else (None, None)
    if type(text) is not str or type(encoding) is not str or encoding not in ("latin1", "latin-1"):
        raise _refused(arguments)
    budget.spend(len(text))
    return text.encode("latin1")


def _bytearray(arguments: tuple, budget: Budget) -> bytearray:
    content = _encode(arguments, budget) if len(arguments) == 2 else _one(arguments, bytes)
    budget.spend(CONTAINER + len(content))
    return bytearray(content)


def _bytes(arguments: tuple, budget: Budget) -> bytes:
    """Of no arguments, or of a list of numbers."""
    numbers = _one(arguments, list, tuple)
    budget.spend(CONTAINER + len(numbers))
    if any(type(number) is not int for number in numbers):
        raise _refused(arguments)
    return bytes(numbers)


def _complex(arguments: tuple, budget: Budget) -> complex:
    if len(arguments) != 2 or any(type(part) is not float for part in arguments):
        raise _refused(arguments)
    return complex(*arguments)


def _ordered(arguments: tuple, budget: Budget) -> OrderedDict:
    """Of no arguments, or of pairs as Python 2 wrote them."""
    pairs = _one(arguments, list, tuple)
    budget.spend(TABLE + 2 * CONTAINER * len(pairs))
    if any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
        raise _refused(arguments)
    check_keys([key for key, _ in pairs], budget)
    return OrderedDict((key, value) for key, value in pairs)


def _defaultdict(arguments: tuple, budget: Budget) -> defaultdict:
    budget.spend(TABLE)
    if not arguments or arguments == (None,):
        return defaultdict()
    if len(arguments) != 1 or type(arguments[0]) is not Name or arguments[0] not in _FACTORIES:
        raise _refused(arguments)
    return defaultdict(_FACTORIES[arguments[0]])


def _reconstruct(arguments: tuple, budget: Budget) -> arrays.Draft:
    budget.spend(TABLE)
    return arrays.reconstruct(arguments, bool(arguments) and arguments[0] is _NDARRAY)


def _member(arguments: tuple, budget: Budget) -> int | str:
    """A member of an enumeration: its value."""
    if len(arguments) != 1 or type(arguments[0]) not in (int, str):
        raise _refused(arguments)
    return arguments[0]


def _member_by_name(arguments: tuple, budget: Budget) -> str:
    """`getattr(enumeration, name)`, as some versions of Python write members: the name. Any other is refused."""
    owner, name = arguments if len(arguments) == 2 else (None, None)
    if type(owner) is not Name or owner.call is not _member or type(name) is not str:
        raise Forbidden("builtins.getattr")
    return name


def _empty_dict(arguments: tuple, budget: Budget) -> dict:
    if arguments:
        raise _refused(arguments)
    budget.spend(TABLE)
    return {}


def _reconstructor(arguments: tuple, budget: Budget) -> dict:
    """copyreg's, as protocols 0 and 1 write a subclass of dict: class, dict, content."""
    if len(arguments) != 3 or type(arguments[0]) is not Name or arguments[0].new is not _empty_dict:
        raise _refused(arguments)
    if arguments[1] is not _DICT or type(arguments[2]) is not dict:
        raise _refused(arguments)
    budget.spend(TABLE + 8 * len(arguments[2]))
    return dict(arguments[2])


_DICT = Name("dict", _empty_dict)
_LIST = Name("list", _copy_of(list, list, tuple, set, frozenset))
_TUPLE = Name("tuple", _copy_of(tuple, list, tuple, set, frozenset))
_SET = Name("set", _set_of(set))
_FROZENSET = Name("frozenset", _set_of(frozenset))
_INT, _FLOAT, _BOOL, _STR = (Name(kind) for kind in ("int", "float", "bool", "str"))
_NDARRAY = Name("numpy.ndarray")

_FACTORIES = {_DICT: dict, _LIST: list, _SET: set, _INT: int, _FLOAT: float, _BOOL: bool, _STR: str, _TUPLE: tuple}

_BUILTINS = {
    **{name.label: name for name in (_DICT, _LIST, _TUPLE, _SET, _FROZENSET, _INT, _FLOAT, _BOOL, _STR)},
    "complex": Name("complex", _complex),
    "bytes": Name("bytes", _bytes),
    "bytearray": Name("bytearray", _bytearray),
    "getattr": Name("getattr", _member_by_name),
}

# __builtin__ and copy_reg are Python 2's names, numpy.core is numpy 1's name of numpy._core
_NAMES: dict[tuple[str, str], Name] = {
    **{(module, label): name for module in ("builtins", "__builtin__") for label, name in _BUILTINS.items()},
    ("__builtin__", "long"): _INT,
    ("__builtin__", "unicode"): _STR,
    ("_codecs", "encode"): Name("_codecs.encode", _encode),
    ("collections", "OrderedDict"): Name("OrderedDict", _ordered),
    ("collections", "defaultdict"): Name("defaultdict", _defaultdict),
    **{(module, "_reconstructor"): Name("_reconstructor", _reconstructor) for module in ("copyreg", "copy_reg")},
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Name("numpy.dtype", arrays.dtype),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Name("_reconstruct", _reconstruct) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): Name("scalar", arrays.scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): Name("_frombuffer", arrays.from_buffer) for core in ("core", "_core")},
}

# classes of those who write scenarios, in whichever module they are kept: a dict by another name, and an enumeration
_HARMLESS: dict[str, Name] = {
    "ScenarioDescription": Name("ScenarioDescription", _empty_dict, _empty_dict),
    "AgentType": Name("AgentType", _member),
}
