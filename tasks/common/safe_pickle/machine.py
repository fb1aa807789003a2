"""An interpreter of pickle's opcodes, protocols 0 to 5, that makes plain data and nothing else.

What the opcodes mean is written in Python's `pickletools`. Left out are those that call a constructor in a way that
plain data does not need (INST, OBJ, NEWOBJ_EX), extension registries, persistent ids and buffers outside of the file.
"""

from __future__ import annotations

import codecs
import pickle
import struct
from collections.abc import Callable
from typing import Any

from tasks.common.safe_pickle.arrays import Draft, DType
from tasks.common.safe_pickle.budget import CONTAINER, TABLE, Budget
from tasks.common.safe_pickle.extent import DEEPEST
from tasks.common.safe_pickle.keys import check_keys
from tasks.common.safe_pickle.names import DICTS, Name, find
from tasks.common.safe_pickle.refusals import Forbidden, Malformed

LONGEST_NUMBER = 64
"""Bytes of an int: such a one is a float, too, and is written in a short time."""
_LONGEST_DIGITS = 200
_MOST_MARKS = 4 * DEEPEST
_NOTHING = object()
_SPECIAL = (Draft, object)
_MEMOIZE, _BINFLOAT, _BINGET = pickle.MEMOIZE[0], pickle.BINFLOAT[0], pickle.BINGET[0]
_DOUBLE = struct.Struct(">d").unpack_from
_INT = struct.Struct("<i").unpack_from
_SHORT = struct.Struct("<H").unpack_from
_LENGTHS = {1: struct.Struct("<B").unpack_from, 4: struct.Struct("<I").unpack_from, 8: struct.Struct("<Q").unpack_from}


class Machine:
    """Each opcode is a method that takes the place after it and returns the place of the next one."""

    def __init__(self, content: bytes, encoding: str, budget: Budget) -> None:
        """encoding: what strings of Python 2 are read as, "ASCII" or "bytes"."""
        self.content = content
        self.encoding = encoding
        self.budget = budget
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.has_gaps = False
        self.methods: list[Callable[[int], int]] = [self._unknown] * 256
        for opcode, name in _METHODS.items():
            self.methods[opcode] = getattr(self, name)
        for opcode, value in _CONSTANTS.items():
            self.methods[opcode] = self._constant(value)

    def run(self) -> Any:
        """The value. Raises Malformed, Forbidden, or what Python raises of broken bytes."""
        content, methods, stack, memo, at = self.content, self.methods, self.stack, self.memo, 0
        try:
            while at >= 0:
                opcode = content[at]
                # two thirds of a scenario's opcodes are these three: without a call they take half the time
                if opcode == _MEMOIZE and not self.has_gaps:
                    memo.append(stack[-1])
                    at += 1
                elif opcode == _BINFLOAT:
                    stack.append(_DOUBLE(content, at + 1)[0])
                    at += 9
                elif opcode == _BINGET and type(value := memo[content[at + 1]]) not in _SPECIAL:
                    stack.append(value)
                    at += 2
                else:
                    at = methods[opcode](at + 1)
        except IndexError as error:
            raise Malformed("it ends, or takes what is not there") from error
        if len(self.stack) != 1 or self.marks:
            raise Malformed("it leaves more than one value")
        return self.stack[0]

    # --- reading ------------------------------------------------------------------------------------------------------

    def _end(self, start: int, length: int) -> int:
        end = start + length
        if end > len(self.content):
            raise Malformed("it ends within a value")
        return end

    def _counted(self, at: int, width: int) -> tuple[bytes, int]:
        """The bytes after a length of `width` bytes, and the place after them."""
        start = at + width
        end = self._end(start, _LENGTHS[width](self.content, at)[0])
        return self.content[start:end], end

    def _line(self, at: int) -> tuple[bytes, int]:
        end = self.content.find(b"\n", at)
        if end < 0:
            raise Malformed("it ends within a line")
        return self.content[at:end], end + 1

    def _since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        if mark > len(self.stack):
            raise Malformed("it takes away what comes before a mark")
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    # --- the frame of it ----------------------------------------------------------------------------------------------

    def _unknown(self, at: int) -> int:
        raise Malformed(f"opcode {self.content[at - 1]} at byte {at - 1} is not one that plain data needs")

    def _constant(self, value: Any) -> Callable[[int], int]:
        append = self.stack.append

        def push(at: int) -> int:
            append(value)
            return at

        return push

    def proto(self, at: int) -> int:
        if self.content[at] > pickle.HIGHEST_PROTOCOL:
            raise Malformed(f"it is of protocol {self.content[at]}")
        return at + 1

    def frame(self, at: int) -> int:
        self._end(at + 8, _LENGTHS[8](self.content, at)[0])
        return at + 8

    def stop(self, at: int) -> int:
        return -1

    def persistent(self, at: int) -> int:
        raise Forbidden("an object of another program")

    # --- stack and memo -----------------------------------------------------------------------------------------------

    def mark(self, at: int) -> int:
        self.marks.append(len(self.stack))
        if len(self.marks) > _MOST_MARKS:
            raise Malformed("it is nested too deeply")
        return at

    def pop(self, at: int) -> int:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()
        return at

    def pop_mark(self, at: int) -> int:
        self._since_mark()
        return at

    def dup(self, at: int) -> int:
        self.stack.append(self.stack[-1])
        return at

    def memoize_after_gaps(self, at: int) -> int:
        raise Malformed("it numbers what it remembers in two ways")

    def put(self, at: int) -> int:
        line, end = self._line(at)
        self._remember(_number(line))
        return end

    def binput(self, at: int) -> int:
        self._remember(self.content[at])
        return at + 1

    def long_binput(self, at: int) -> int:
        self._remember(_LENGTHS[4](self.content, at)[0])
        return at + 4

    def _remember(self, index: int) -> None:
        memo = self.memo
        if index == len(memo):
            memo.append(self.stack[-1])
            return
        if not 0 <= index < len(self.content):  # each takes more than a byte to be made
            raise Malformed(f"it remembers a value as number {index}")
        if index > len(memo):
            self.has_gaps = True
            memo.extend([_NOTHING] * (index + 1 - len(memo)))
        memo[index] = self.stack[-1]

    def get(self, at: int) -> int:
        line, end = self._line(at)
        self._recall(_number(line))
        return end

    def binget(self, at: int) -> int:
        self._recall(self.content[at])
        return at + 1

    def long_binget(self, at: int) -> int:
        self._recall(_LENGTHS[4](self.content, at)[0])
        return at + 4

    def _recall(self, index: int) -> None:
        if index < 0:
            raise Malformed(f"it asks for value number {index}")
        value = self.memo[index]
        if value is _NOTHING:
            raise Malformed(f"it asks for value number {index}, which there is not")
        if type(value) is Draft:
            value = value.built
            if value is None:
                raise Malformed("it uses an array before it is made")
        self.stack.append(value)

    # --- numbers ------------------------------------------------------------------------------------------------------

    def int_line(self, at: int) -> int:
        line, end = self._line(at)
        self.stack.append({b"00": False, b"01": True}[line] if line in (b"00", b"01") else _number(line))
        return end

    def long_line(self, at: int) -> int:
        line, end = self._line(at)
        self.stack.append(_number(line.removesuffix(b"L")))
        return end

    def float_line(self, at: int) -> int:
        line, end = self._line(at)
        if len(line) > _LONGEST_DIGITS:
            raise Malformed("it has a number of too many digits")
        self.stack.append(float(line))
        return end

    def binint(self, at: int) -> int:
        self.stack.append(_INT(self.content, at)[0])
        return at + 4

    def binint1(self, at: int) -> int:
        self.stack.append(self.content[at])
        return at + 1

    def binint2(self, at: int) -> int:
        self.stack.append(_SHORT(self.content, at)[0])
        return at + 2

    def long1(self, at: int) -> int:
        return self._long(at, 1)

    def long4(self, at: int) -> int:
        return self._long(at, 4)

    def _long(self, at: int, width: int) -> int:
        digits, end = self._counted(at, width)
        if len(digits) > LONGEST_NUMBER:
            raise Malformed(f"it has a number of {len(digits)} bytes")
        self.stack.append(int.from_bytes(digits, "little", signed=True))
        return end

    # --- text and bytes -----------------------------------------------------------------------------------------------

    def unicode_line(self, at: int) -> int:
        line, end = self._line(at)
        self.stack.append(str(line, "raw-unicode-escape"))
        return end

    def short_binunicode(self, at: int) -> int:
        return self._text(at, 1)

    def binunicode(self, at: int) -> int:
        return self._text(at, 4)

    def binunicode8(self, at: int) -> int:
        return self._text(at, 8)

    def _text(self, at: int, width: int) -> int:
        text, end = self._counted(at, width)
        self.stack.append(str(text, "utf-8", "surrogatepass"))
        return end

    def short_binbytes(self, at: int) -> int:
        return self._bytes(at, 1)

    def binbytes(self, at: int) -> int:
        return self._bytes(at, 4)

    def binbytes8(self, at: int) -> int:
        return self._bytes(at, 8)

    def _bytes(self, at: int, width: int) -> int:
        content, end = self._counted(at, width)
        self.stack.append(content)
        return end

    def bytearray8(self, at: int) -> int:
        content, end = self._counted(at, 8)
        self.stack.append(bytearray(content))
        return end

    def string_line(self, at: int) -> int:
        line, end = self._line(at)
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b'"', b"'"):
            raise Malformed("it has a string without quotes")
        self._python2(codecs.escape_decode(line[1:-1])[0])
        return end

    def short_binstring(self, at: int) -> int:
        content, end = self._counted(at, 1)
        self._python2(content)
        return end

    def binstring(self, at: int) -> int:
        content, end = self._counted(at, 4)
        self._python2(content)
        return end

    def _python2(self, content: bytes) -> None:
        self.stack.append(content if self.encoding == "bytes" else str(content, self.encoding))

    # --- containers ---------------------------------------------------------------------------------------------------

    def empty_list(self, at: int) -> int:
        self.budget.spend(CONTAINER)
        self.stack.append([])
        return at

    def empty_dict(self, at: int) -> int:
        self.budget.spend(TABLE)
        self.stack.append({})
        return at

    def empty_set(self, at: int) -> int:
        self.budget.spend(TABLE)
        self.stack.append(set())
        return at

    def tuple1(self, at: int) -> int:
        self.budget.spend(CONTAINER)
        self.stack[-1] = (self.stack[-1],)
        return at

    def tuple2(self, at: int) -> int:
        self.budget.spend(CONTAINER)
        second = self.stack.pop()
        self.stack[-1] = (self.stack[-1], second)
        return at

    def tuple3(self, at: int) -> int:
        self.budget.spend(CONTAINER)
        third = self.stack.pop()
        second = self.stack.pop()
        self.stack[-1] = (self.stack[-1], second, third)
        return at

    def tuple_since_mark(self, at: int) -> int:
        self.budget.spend(CONTAINER)
        items = tuple(self._since_mark())
        self.stack.append(items)
        return at

    def list_since_mark(self, at: int) -> int:
        self.budget.spend(CONTAINER)
        items = self._since_mark()
        self.stack.append(items)
        return at

    def dict_since_mark(self, at: int) -> int:
        self.budget.spend(TABLE)
        items = self._since_mark()
        self.stack.append({})
        self._set_items(items)
        return at

    def frozenset_since_mark(self, at: int) -> int:
        items = self._since_mark()
        self.budget.spend(TABLE + 8 * len(items))
        check_keys(items, self.budget)
        self.stack.append(frozenset(items))
        return at

    def append(self, at: int) -> int:
        item = self.stack.pop()
        self._top(list).append(item)
        return at

    def appends(self, at: int) -> int:
        items = self._since_mark()
        self._top(list).extend(items)
        return at

    def additems(self, at: int) -> int:
        items = self._since_mark()
        check_keys(items, self.budget)
        self._top(set).update(items)
        return at

    def setitem(self, at: int) -> int:
        items = self.stack[-2:]
        del self.stack[-2:]
        self._set_items(items)
        return at

    def setitems(self, at: int) -> int:
        self._set_items(self._since_mark())
        return at

    def _set_items(self, items: list[Any]) -> None:
        keys = items[::2]
        if len(items) % 2:
            raise Malformed("it has a key without a value")
        if keys:
            check_keys(keys, self.budget)
            self._top(*DICTS).update(zip(keys, items[1::2], strict=True))

    def _top(self, *kinds: type) -> Any:
        top = self.stack[-1]
        if type(top) not in kinds:
            raise Malformed(f"it adds to what is no {kinds[0].__name__}")
        return top

    # --- names --------------------------------------------------------------------------------------------------------

    def global_lines(self, at: int) -> int:
        module, at = self._line(at)
        name, at = self._line(at)
        self.stack.append(find(str(module, "utf-8"), str(name, "utf-8")))
        return at

    def stack_global(self, at: int) -> int:
        name = self.stack.pop()
        self.stack[-1] = find(self.stack[-1], name)
        return at

    def reduce(self, at: int) -> int:
        name, arguments = self._call()
        if name.call is None:
            raise Malformed(f"it calls {name.label}")
        self.stack.append(name.call(arguments, self.budget))
        return at

    def newobj(self, at: int) -> int:
        name, arguments = self._call()
        if name.new is None:
            raise Malformed(f"it makes an object of {name.label}")
        self.stack.append(name.new(arguments, self.budget))
        return at

    def _call(self) -> tuple[Name, tuple]:
        arguments = self.stack.pop()
        name = self.stack.pop()
        if type(name) is not Name or type(arguments) is not tuple:
            raise Malformed("it calls what is no function")
        return name, arguments

    def build(self, at: int) -> int:
        state = self.stack.pop()
        top = self.stack[-1]
        if type(top) is Draft:
            self.stack[-1] = top.build(state, self.budget)
        elif type(top) is DType:
            top.build(state)
        else:
            raise Malformed("it changes what it is read with")
        return at


def _number(line: bytes) -> int:
    if len(line) > _LONGEST_DIGITS:
        raise Malformed("it has a number of too many digits")
    number = int(line)
    if number.bit_length() > 8 * LONGEST_NUMBER:
        raise Malformed("it has a number of too many digits")
    return number


_CONSTANTS = {
    pickle.NONE[0]: None,
    pickle.NEWTRUE[0]: True,
    pickle.NEWFALSE[0]: False,
    pickle.EMPTY_TUPLE[0]: (),
}
_METHODS = {
    pickle.PROTO[0]: "proto",
    pickle.FRAME[0]: "frame",
    pickle.STOP[0]: "stop",
    pickle.PERSID[0]: "persistent",
    pickle.BINPERSID[0]: "persistent",
    pickle.MARK[0]: "mark",
    pickle.POP[0]: "pop",
    pickle.POP_MARK[0]: "pop_mark",
    pickle.DUP[0]: "dup",
    pickle.MEMOIZE[0]: "memoize_after_gaps",
    pickle.PUT[0]: "put",
    pickle.BINPUT[0]: "binput",
    pickle.LONG_BINPUT[0]: "long_binput",
    pickle.GET[0]: "get",
    pickle.BINGET[0]: "binget",
    pickle.LONG_BINGET[0]: "long_binget",
    pickle.INT[0]: "int_line",
    pickle.LONG[0]: "long_line",
    pickle.FLOAT[0]: "float_line",
    pickle.BININT[0]: "binint",
    pickle.BININT1[0]: "binint1",
    pickle.BININT2[0]: "binint2",
    pickle.LONG1[0]: "long1",
    pickle.LONG4[0]: "long4",
    pickle.UNICODE[0]: "unicode_line",
    pickle.SHORT_BINUNICODE[0]: "short_binunicode",
    pickle.BINUNICODE[0]: "binunicode",
    pickle.BINUNICODE8[0]: "binunicode8",
    pickle.SHORT_BINBYTES[0]: "short_binbytes",
    pickle.BINBYTES[0]: "binbytes",
    pickle.BINBYTES8[0]: "binbytes8",
    pickle.BYTEARRAY8[0]: "bytearray8",
    pickle.STRING[0]: "string_line",
    pickle.SHORT_BINSTRING[0]: "short_binstring",
    pickle.BINSTRING[0]: "binstring",
    pickle.EMPTY_LIST[0]: "empty_list",
    pickle.EMPTY_DICT[0]: "empty_dict",
    pickle.EMPTY_SET[0]: "empty_set",
    pickle.TUPLE1[0]: "tuple1",
    pickle.TUPLE2[0]: "tuple2",
    pickle.TUPLE3[0]: "tuple3",
    pickle.TUPLE[0]: "tuple_since_mark",
    pickle.LIST[0]: "list_since_mark",
    pickle.DICT[0]: "dict_since_mark",
    pickle.FROZENSET[0]: "frozenset_since_mark",
    pickle.APPEND[0]: "append",
    pickle.APPENDS[0]: "appends",
    pickle.ADDITEMS[0]: "additems",
    pickle.SETITEM[0]: "setitem",
    pickle.SETITEMS[0]: "setitems",
    pickle.GLOBAL[0]: "global_lines",
    pickle.STACK_GLOBAL[0]: "stack_global",
    pickle.REDUCE[0]: "reduce",
    pickle.NEWOBJ[0]: "newobj",
    pickle.BUILD[0]: "build",
}
