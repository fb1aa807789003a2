"""Pickles that were made to do harm, opcode by opcode. Each is to be refused: in a short time, in little memory, and
without anything of it being run."""

from __future__ import annotations

import itertools
import os
import pickle
import random
import struct
from collections.abc import Iterator

import numpy as np

MARK_NAME = "was_here"
"""A file that appears in the working directory where one of them is run."""
SIZE = 2**20
"""Of those that need many bytes."""

PROTO = b"\x80\x04"
MULTIARRAY, NUMERIC = "numpy._core.multiarray", "numpy._core.numeric"


def text(content: str) -> bytes:
    encoded = content.encode()
    return b"\x8c" + bytes([len(encoded)]) + encoded


def binary(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(digits)]) + digits


def name(module: str, function: str) -> bytes:
    return text(module) + text(function) + b"\x93"


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tuple_of(*arguments) + b"R"


def dtype(kind: str, *state: bytes) -> bytes:
    made = call(name("numpy", "dtype"), text(kind), b"\x89", b"\x88")
    return made + tuple_of(*state) + b"b" if state else made


def plain_dtype(kind: str) -> bytes:
    return dtype(kind, number(3), text("<"), b"N", b"N", b"N", number(-1), number(-1), number(0))


def array(kind: bytes, shape: bytes, content: bytes, order: bytes = b"\x89", version: bytes = b"K\x01") -> bytes:
    empty = call(name(MULTIARRAY, "_reconstruct"), name("numpy", "ndarray"), tuple_of(b"K\x00"), b"C\x01b")
    return empty + tuple_of(version, shape, kind, order, content) + b"b"


def whole(body: bytes) -> bytes:
    return PROTO + body + b"."


def _doubling(levels: int, make: bytes) -> bytes:
    """Each of `levels` values holds the one before twice; `make` takes two values from the stack."""
    return b"K\x01\x94" + b"".join(b"0h" + bytes([i]) + b"h" + bytes([i]) + make + b"\x94" for i in range(levels))


def _names() -> Iterator[tuple[str, bytes]]:
    command = text(f"touch {MARK_NAME}")
    for module, function in (
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("subprocess", "check_output"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "compile"),
        ("builtins", "__import__"),
        ("builtins", "open"),
        ("builtins", "print"),
        ("builtins", "type"),
        ("builtins", "object"),
        ("builtins", "range"),
        ("importlib", "import_module"),
        ("runpy", "run_module"),
        ("runpy", "run_path"),
        ("shutil", "rmtree"),
        ("socket", "create_connection"),
        ("ctypes", "string_at"),
        ("marshal", "loads"),
        ("pickle", "loads"),
        ("_pickle", "loads"),
        ("types", "FunctionType"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy", "frombuffer"),
        ("numpy", "memmap"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "dtype.__class__"),
        ("numpy.f2py.__main__", "_frombuffer"),
        ("numpy.f2py.__main__", "dtype"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy.ma.core", "_mareconstruct"),
        ("numpy._core._internal", "_reconstruct"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("pandas", "read_pickle"),
        ("copyreg", "__newobj__"),
        ("copyreg", "add_extension"),
    ):
        yield f"calls {module}.{function}", whole(call(name(module, function), command))
    yield "calls os.system in protocol 0", f"cos\nsystem\n(Vtouch {MARK_NAME}\ntR.".encode()
    yield "calls os.system as INST", f"(Vtouch {MARK_NAME}\nios\nsystem\n.".encode()
    yield "calls os.system as OBJ", b"(cos\nsystem\n" + command + b"o."
    yield "makes os.system anew", whole(name("os", "system") + tuple_of(command) + b"\x81")
    yield "makes os.system anew with options", whole(name("os", "system") + tuple_of(command) + b"}\x92")
    yield "gets an attribute", whole(call(name("builtins", "getattr"), b"]", text("append")))
    yield "gets an attribute of a dtype", whole(call(name("builtins", "getattr"), plain_dtype("f8"), text("type")))
    yield "a name of numbers", whole(b"K\x01K\x02\x93")
    yield "a name as data", whole(b"]" + name("builtins", "int") + b"a")
    yield "a name as a key", whole(b"}" + name("builtins", "int") + b"K\x01s")
    yield "a dtype as data", whole(plain_dtype("f8"))
    yield "an extension", whole(b"\x82\x01")
    yield "an extension of 4 bytes", whole(b"\x84" + struct.pack("<i", 2**31 - 1))
    yield "a persistent id", whole(text("x") + b"Q")
    yield "a persistent id in protocol 0", b"Px\n."
    yield "a buffer of another program", b"\x80\x05\x97."
    yield "a read-only buffer", b"\x80\x05C\x01a\x98."


def _arrays() -> Iterator[tuple[str, bytes]]:
    one = tuple_of(b"K\x01")
    objects = dtype("O8", number(3), text("|"), b"N", b"N", b"N", number(-1), number(-1), number(63))
    field = b"}" + text("a") + tuple_of(objects, b"K\x00") + b"s"
    record = dtype("V8", number(3), text("|"), b"N", tuple_of(text("a")), field, number(8), number(1), number(16))
    addresses = binary(struct.pack("<Q", 0x4141414141414141))
    yield "bytes as the addresses of objects", whole(array(record, one, addresses))
    for kind in ("f8", "V8", "S8"):
        lying = dtype(kind, number(3), text("|"), b"N", tuple_of(text("a")), field, number(8), number(1), number(63))
        yield f"fields in {kind}", whole(array(lying, one, addresses))
        far = b"}" + text("a") + tuple_of(plain_dtype("f8"), number(2**30)) + b"s"
        lying = dtype(kind, number(3), text("|"), b"N", tuple_of(text("a")), far, number(8), number(1), number(0))
        yield f"a far field in {kind}", whole(array(lying, one, addresses))
    lying = dtype("f8", number(3), text("<"), b"N", b"N", b"N", number(-1), number(-1), number(63))
    yield "numbers that are said to be objects", whole(array(lying, one, addresses))
    yield "a scalar that is said to be an object", whole(call(name(MULTIARRAY, "scalar"), lying, addresses))
    nothing = tuple_of(number(2**16), number(2**16), b"K\x00")
    yield "an array of no elements and 2^32 rows", whole(array(plain_dtype("f8"), nothing, binary(b"")))
    for size in (0, 1, 2**30, -8):
        lying = dtype("f8", number(3), text("<"), b"N", b"N", b"N", number(size), number(1), number(0))
        yield f"numbers that are said to be {size} bytes", whole(array(lying, one, addresses))
        lying = dtype("S8", number(3), text("|"), b"N", b"N", b"N", number(size), number(1), number(0))
        yield f"text that is said to be {size} bytes", whole(array(lying, one, addresses))
    sub = tuple_of(plain_dtype("f8"), tuple_of(number(2**30)))
    lying = dtype("V8", number(3), text("|"), sub, b"N", b"N", number(8), number(1), number(0))
    yield "a dtype of arrays", whole(array(lying, one, addresses))
    twice = plain_dtype("f8") + tuple_of(number(3), text(">"), b"N", b"N", b"N", number(-1), number(-1), number(0))
    yield "a dtype that is told twice", whole(array(twice + b"b", one, addresses))
    yield (
        "a dtype that is changed by its attributes",
        whole(plain_dtype("f8") + b"}" + text("kind") + text("O") + b"sb"),
    )
    for kind in ("O", "V8", "M8", "m8", "f16", "f3", "i16", "U", "S-1", "U99999999", "f8,f8", "(2,)f8", "a8", ">f8"):
        yield f"dtype {kind}", whole(array(plain_dtype(kind), one, addresses))
    yield "objects in a buffer", whole(call(name(NUMERIC, "_frombuffer"), addresses, objects, one, text("C")))
    yield "an object as a scalar", whole(call(name(MULTIARRAY, "scalar"), objects, addresses))
    yield "too few objects", whole(array(objects, tuple_of(number(1000)), b"]"))
    yield "objects that are bytes", whole(array(objects, one, addresses))
    yield "many objects without an axis", whole(array(objects, tuple_of(number(2**40), b"K\x00"), b"]"))
    yield "objects over each other", whole(b"]\x94" + array(objects, one, b"h\x00") + b"a")
    for shape in (2, 2**20, 2**40, 2**62, 2**63, 2**64 + 1, -1):
        yield f"shape {shape}", whole(array(plain_dtype("f8"), tuple_of(number(shape)), addresses))
    shapes = tuple_of(number(2**32), number(2**32)), tuple_of(number(2**40), b"K\x00"), tuple_of(text("a")), b"N"
    for at, shape in enumerate((*shapes, tuple_of(*[b"K\x01"] * 1000))):
        yield f"odd shape {at}", whole(array(plain_dtype("f8"), shape, addresses))
    yield "text of no size", whole(array(plain_dtype("S0"), tuple_of(number(2**50)), binary(b"")))
    yield "characters that there are not", whole(array(plain_dtype("U1"), one, binary(b"\xff" * 4)))
    yield "truth that is neither", whole(array(plain_dtype("b1"), one, binary(b"\x02")))
    yield "another version", whole(array(plain_dtype("f8"), one, addresses, version=b"K\x09"))
    yield "an order that is a list", whole(array(plain_dtype("f8"), one, addresses, order=b"]"))
    made = call(name(MULTIARRAY, "_reconstruct"), name("numpy", "ndarray"), tuple_of(number(2**46)), text("f8"))
    yield "room for 2**46 numbers", whole(made)
    yield (
        "a subclass of arrays",
        whole(call(name(MULTIARRAY, "_reconstruct"), name("builtins", "list"), tuple_of(b"K\x00"), b"C\x01b")),
    )
    empty = call(name(MULTIARRAY, "_reconstruct"), name("numpy", "ndarray"), tuple_of(b"K\x00"), b"C\x01b")
    yield "an array that is never made", whole(empty)
    yield "an array that is used before it is made", whole(b"]" + empty + b"\x94" + b"h\x00aa")
    yield "an array that is made twice", whole(array(plain_dtype("f8"), one, addresses) + b"Nb")
    for function in ("_reconstruct", "scalar"):
        yield (
            f"{function} with other defaults",
            whole(name(MULTIARRAY, function) + b"N}" + text("__defaults__") + b"Ns\x86b"),
        )


def _sizes() -> Iterator[tuple[str, bytes]]:
    yield "a key of 2**40 steps", whole(b"}" + _doubling(40, b"\x86") + b"K\x01s")
    yield "a factory of 2**40 steps", whole(name("collections", "defaultdict") + _doubling(40, b"\x86") + b"\x85R")
    alike = {np.complex128(complex(-1000003 * k, k)): 0 for k in range(1, 4001)}  # all of one hash
    yield "complex keys of one hash", pickle.dumps(alike, protocol=4)
    yield "a set of 2**40 steps", whole(b"(" + _doubling(40, b"\x86") + b"\x91")
    yield "tuples of 2**40 elements", whole(_doubling(40, b"\x86"))
    lists = b"]\x94K\x01a" + b"".join(
        b"]\x94h" + bytes([i]) + b"ah" + bytes([i]) + b"a" for i in range(60)
    )  # each holds the one before it twice
    yield "lists that double", whole(b"(" + lists + b"l")
    dicts = b"}\x94" + b"".join(b"}\x94K\x00h" + bytes([i]) + b"sK\x01h" + bytes([i]) + b"s" for i in range(60))
    yield "dicts that double", whole(b"(" + dicts + b"l")
    yield "a tuple in a tuple in a tuple as a key", whole(b"})" + b"\x85" * SIZE + b"K\x01s")
    yield "tuples in tuples", whole(b")" + b"\x85" * SIZE)
    yield "lists in lists", whole(b"]" * SIZE + b"a" * (SIZE - 1))
    yield "dicts in dicts", whole(b"}" + b"K\x01}" * (SIZE // 4) + b"s" * (SIZE // 4))
    yield "marks", whole(b"(" * SIZE)
    yield "marks in protocol 0", b"(l" * (SIZE // 8) + b"a" * (SIZE // 8 - 1) + b"."
    yield "dicts side by side", whole(b"(" + b"}" * SIZE + b"l")
    yield "sets side by side", whole(b"(" + b"\x8f" * SIZE + b"l")
    yield "lists side by side", whole(b"(" + b"]" * SIZE + b"l")
    yield "dicts of one key side by side", whole(b"(" + b"}NNs" * (SIZE // 8) + b"l")
    yield "a list in itself", whole(b"]\x94h\x00a")
    yield "a dict in itself", whole(b"}\x94K\x01h\x00s")
    yield "a tuple in itself", whole(b"]\x94h\x00\x85ah\x00\x85")
    yield "a list in itself many times", whole(b"]\x94(" + b"h\x00" * 1000 + b"e")
    for index in (10**8, 2**31, 2**32 - 1):
        yield f"LONG_BINPUT {index}", whole(b"Nr" + struct.pack("<I", index))
    for index in ("100000000", "-1", "9" * 5000, "1" + "0" * 100):
        yield f"PUT {index[:12]}", b"Np" + index.encode() + b"\n."
        yield f"GET {index[:12]}", b"Ng" + index.encode() + b"\n."
    yield "BINGET of nothing", whole(b"h\x07")
    yield "BINGET in a gap", b"\x80\x02Nq\x05h\x03\x86."
    for opcode in (b"B", b"X", b"\x8b", b"\x8d", b"\x8e", b"\x96"):
        width = "<I" if opcode in b"BX\x8b" else "<Q"
        most = 2**31 - 1 if opcode == b"\x8b" else 2 ** (32 if width == "<I" else 64) - 1
        yield f"opcode {opcode!r} of {most} bytes", whole(opcode + struct.pack(width, most) + b"abc")
    yield "a frame of 2**60 bytes", b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N."
    yield "an int of a million bytes", whole(b"\x8b" + struct.pack("<I", 10**6) + b"\x7f" * 10**6)
    yield "an int of 255 bytes", whole(b"\x8a\xff" + b"\x7f" * 255)
    yield "an int of a million digits", b"L" + b"9" * 10**6 + b"L\n."
    yield "an int line of a million digits", b"I" + b"9" * 10**6 + b"\n."
    yield "a float of a million digits", b"F" + b"9" * 10**6 + b"\n."
    yield "a key of two million characters", whole(b"}X" + struct.pack("<I", SIZE) + b"a" * SIZE + b"Ns")
    long = b"X" + struct.pack("<I", SIZE // 2) + b"a" * (SIZE // 2)
    yield (
        "two long keys that are compared for ever",
        whole(b"}" + long + b"\x940" + long + b"\x940" + b"h\x00Nsh\x01Ns" * (SIZE // 16)),
    )
    yield "a long text many times", whole(long + b"\x940(" + b"h\x00" * (SIZE // 4) + b"l")
    ints = b"(" + b"K\x01" * (SIZE // 8) + b"l\x940"
    for kind in ("set", "frozenset", "list", "tuple"):
        again = name("builtins", kind) + b"\x940" + (b"h\x01h\x00\x85R0") * (SIZE // 32)
        yield f"{kind} of a long list many times", whole(ints + again + b"N")
    again = name("builtins", "bytearray") + b"\x940" + (b"h\x01h\x00\x85R0") * (SIZE // 16)
    yield "bytearray of long bytes many times", whole(binary(b"a" * (SIZE // 2)) + b"\x940" + again + b"N")
    again = name("_codecs", "encode") + b"\x940" + text("latin1") + b"\x940" + b"h\x01h\x00h\x02\x86R0" * (SIZE // 16)
    yield "bytes of long text many times", whole(long + b"\x940" + again + b"N")
    bytes_ = binary(b"a" * (SIZE // 2)) + b"\x940" + plain_dtype("S1") + b"\x940" + name(NUMERIC, "_frombuffer")
    bytes_ += b"\x940" + number(SIZE // 2) + b"\x85\x940" + text("C") + b"\x940("
    again = b"h\x02(h\x00h\x01h\x03h\x04tR" * (SIZE // 32)
    yield "arrays of the same bytes", whole(bytes_ + again + b"l")
    collide = b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(SIZE // 16))
    yield "keys of one hash", whole(b"}(" + collide + b"u")
    pairs = b"".join(b"K" + bytes([i % 256]) + number(i) + b"\x86N" for i in range(SIZE // 16))
    yield "pairs as keys", whole(b"}(" + pairs + b"u")


def _broken() -> Iterator[tuple[str, bytes]]:
    yield "nothing", b""
    yield "a dot", b"."
    yield "no end", b"\x80\x04N"
    yield "two values", whole(b"NN")
    yield "an open mark", whole(b"(N")
    yield "protocol 255", b"\x80\xffN."
    yield "an unknown opcode", whole(b"\xff")
    yield "no dict to add to", whole(b"]K\x01K\x02s")
    yield "no list to add to", whole(b"}K\x01a")
    yield "no set to add to", whole(b"](K\x01\x90")
    yield "a key without a value", whole(b"}(K\x01u")
    yield "a list as a key", whole(b"}]K\x01s")
    yield "a dict in a set", whole(b"\x8f(}\x90")
    yield "what comes before a mark", whole(b"N(00t")
    yield "no stack", whole(b"0")
    yield "nothing to double", whole(b"2")
    yield "three of two", whole(b"NN\x87")
    yield "text that is none", whole(b"\x8c\x02\xff\xff")
    yield "an escape that is none", b"V\\u12\n."
    yield "a string without quotes", b"Sabc\n."
    yield "a string of Python 2 that is no ASCII", b"U\x01\xff."
    yield "a number that is none", b"Iabc\n."
    yield "a float that is none", b"Fabc\n."
    yield "half a float", b"G\x00\x00"
    yield "half a line", b"I12"
    yield "changes a list", whole(b"]}K\x01K\x02sb")
    yield "calls a number", whole(b"K\x01)R")
    yield "calls without a tuple", whole(name("builtins", "set") + b"]R")
    yield "bytes of a length", whole(call(name("builtins", "bytes"), number(2**30)))
    yield "a bytearray of a length", whole(call(name("builtins", "bytearray"), number(2**30)))
    yield "a list of a text", whole(call(name("builtins", "list"), text("abc")))
    yield "an int of a text", whole(call(name("builtins", "int"), text("9" * 200)))
    yield "another encoding", whole(call(name("_codecs", "encode"), text("abc"), text("zip")))
    yield "a default that is a function", whole(call(name("collections", "defaultdict"), name("_codecs", "encode")))
    yield "a scenario with arguments", whole(name("a.b", "ScenarioDescription") + tuple_of(b"]") + b"\x81")
    yield "a kind that is a list", whole(call(name("a.b", "AgentType"), b"]"))


def hostile() -> dict[str, bytes]:
    """All of them, by what they do."""
    made: dict[str, bytes] = {}
    for what, content in itertools.chain(_names(), _arrays(), _sizes(), _broken()):
        assert what not in made, what
        made[what] = content
    return made


def harmless() -> dict:
    """Plain data of every kind, for what becomes of it when its bytes are changed."""
    return {
        "text": "lane \N{GREEK SMALL LETTER ALPHA}",
        "numbers": [1, -2, 300, 2**40, -2.5, None, True, False],
        "sets": [{"a", "b"}, frozenset({1, 2})],
        "tuple": (1, (2, 3, 4), ()),
        "bytes": [b"ab", bytearray(b"cd")],
        "arrays": [np.arange(6.0).reshape(2, 3), np.array(["a", "bcd"]), np.array([True]), np.arange(3, dtype=">i4")],
        "scalars": [np.float32(1.5), np.int64(3), np.str_("ab"), np.bool_(True)],
        "again": ["lane", "lane", {"position": 1, 7: 2}],
    }


def mutated(count: int, seed: int = 0) -> Iterator[bytes]:
    """Pickles of `harmless`, of all protocols, with some bytes changed, cut out, doubled or exchanged."""
    rng = random.Random(seed)
    wholes = [pickle.dumps(harmless(), protocol=protocol) for protocol in range(6)]
    for _ in range(count):
        content = bytearray(rng.choice(wholes))
        for _ in range(rng.randint(1, 4)):
            at, length, how = rng.randrange(len(content)), rng.randint(1, 8), rng.randrange(4)
            if how == 0:
                content[at] = rng.randrange(256)
            elif how == 1:
                content[at] ^= 1 << rng.randrange(8)
            elif how == 2:
                del content[at : at + length]
            else:
                content[at:at] = content[at : at + length]
        yield bytes(content)


def write_all(folder: str | os.PathLike) -> list[tuple[str, str]]:
    """(what it does, its file's name), in `folder`."""
    named = []
    for at, (what, content) in enumerate(hostile().items()):
        file = f"sd_{at}.pkl"
        with open(os.path.join(folder, file), "wb") as opened:
            opened.write(content)
        named.append((what, file))
    return named
