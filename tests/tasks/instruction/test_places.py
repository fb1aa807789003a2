"""Where rows lie: files of every kind, packed or not, patterns, folders, and LLaMA-Factory's list of datasets."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from tarot import InputError

pytest.importorskip("transformers")

from tasks.instruction.reading import read_rows

TALKS = [
    {"messages": [{"role": "user", "content": f"what is {i}?"}, {"role": "assistant", "content": f"it is {i}"}]}
    for i in range(5)
]
SAID = [(("user", f"what is {i}?"), ("assistant", f"it is {i}")) for i in range(5)]
LINES = "".join(json.dumps(talk) + "\n" for talk in TALKS).encode()
LIST = json.dumps(TALKS, indent=1).encode()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def table(path: Path) -> pa.Table:
    return pa.Table.from_pylist([{**talk, "id": None if i else "x"} for i, talk in enumerate(TALKS)])


def write_parquet(path: Path) -> None:
    parquet.write_table(table(path), path)


def write_arrow(path: Path, opened=ipc.new_file) -> None:
    with pa.OSFile(str(path), "wb") as sink, opened(sink, table(path).schema) as writer:
        writer.write_table(table(path), max_chunksize=2)


def write_csv(path: Path, delimiter: str = ",") -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["question", "answer"])
        writer.writerows((f"what is {i}?", f"it is {i}") for i in range(5))


KINDS = {
    "a.jsonl": lambda path: path.write_bytes(LINES),
    "a.json": lambda path: path.write_bytes(LIST),
    "one_line.json": lambda path: path.write_text(json.dumps(TALKS)),
    "pretty.json": lambda path: path.write_text("\n".join(json.dumps(talk, indent=2) for talk in TALKS)),
    "utf32.jsonl": lambda path: path.write_text(LINES.decode(), encoding="utf-32"),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "a.json.zst": lambda path: path.write_bytes(zstd(LIST)),
    "two_frames.jsonl.zst": lambda path: path.write_bytes(zstd(LINES[:200]) + zstd(LINES[200:])),
    "a.jsonl.bz2": lambda path: path.write_bytes(bz2.compress(LINES)),
    "a.jsonl.xz": lambda path: path.write_bytes(lzma.compress(LINES)),
    "packed_after_all.jsonl": lambda path: path.write_bytes(gzip.compress(LINES)),
    "a.csv": write_csv,
    "a.tsv": lambda path: write_csv(path, "\t"),
    "a.parquet": write_parquet,
    "file.arrow": write_arrow,
    "stream.arrow": lambda path: write_arrow(path, ipc.new_stream),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file(tmp_path, name):
    path = tmp_path / name
    KINDS[name](path)
    rows = read_rows(path)
    assert [row.messages for row in rows] == SAID
    called = name.split(".")[0]
    by_index = name.endswith((".parquet", ".arrow"))
    assert [row.dataset for row in rows] == [called] * 5
    if by_index:
        assert [row.id for row in rows] == ["x", *(f"{called}:{i}" for i in range(1, 5))]
        assert rows[3].where == f"{path}[3]" and rows[3].raw == TALKS[3]
    else:
        first = 2 if name.endswith(("csv", "tsv")) else 1
        assert [row.id for row in rows] == [f"{called}:{i}" for i in range(first, first + 5)]
    if name == "a.json":
        assert rows[1].where == f"{path}:{LIST.split(b'what is 1')[0].count(chr(10).encode()) - 3}"


def test_a_row_of_a_table_that_lacks_cells_is_a_bad_row(tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_text('question,answer\n"two\nlines",yes\nonly\nq,a\n')
    assert [(row.id, row.messages[0][1]) for row in read_rows(path)] == [("a:2", "two\nlines"), ("a:5", "q")]
    assert f"{path}:4: a row has 2 cells" in caplog.text
    path.write_text("question,question\na,b\n")
    with pytest.raises(InputError, match=r"a\.csv:1 names a column twice"):
        read_rows(path)
    path.write_text('question,answer\n"open,b\n')
    with pytest.raises(InputError, match=r"a\.csv:2 cannot be read as a table"):
        read_rows(path)


def test_patterns_and_folders(tmp_path):
    (tmp_path / "data" / "more").mkdir(parents=True)
    for name in ("b.jsonl", "a.jsonl", "more/a.jsonl"):
        (tmp_path / "data" / name).write_bytes(LINES.splitlines()[0])
    (tmp_path / "data" / "notes.txt").write_text("nothing")
    assert [row.id for row in read_rows(f"{tmp_path}/data/*.jsonl")] == ["a:1", "b:1"]
    assert [row.id for row in read_rows(tmp_path / "data")] == ["data/a:1", "b:1", "more/a:1"]
    named = read_rows({"mine": f"{tmp_path}/data/**/*.jsonl"})
    assert {row.dataset for row in named} == {"mine"}
    assert [row.id for row in named] == ["mine/data/a:1", "mine/b:1", "mine/more/a:1"]
    with pytest.raises(InputError, match="nothing is called"):
        read_rows(f"{tmp_path}/*.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no files of rows"):
        read_rows(tmp_path / "empty")


def test_what_the_library_datasets_saves(tmp_path):
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(TALKS)
    saved.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": saved, "test": saved.select([4])}).save_to_disk(tmp_path / "both")
    rows = read_rows(tmp_path / "one")
    assert [row.messages for row in rows] == SAID and rows[4].where == f"{tmp_path}/one[4]"
    assert [row.id for row in rows] == [f"one:{i}" for i in range(5)]
    assert [row.messages for row in read_rows(tmp_path / "both")] == SAID
    assert [row.messages for row in read_rows(f"{tmp_path}/both:test")] == SAID[4:]
    with pytest.raises(InputError, match="has the splits train, test; say which"):
        read_rows(f"{tmp_path}/both:valid")
    with pytest.raises(InputError, match="has no splits"):
        read_rows(f"{tmp_path}/one:test")


# --- columns ---------------------------------------------------------------------------------------------------------


def test_columns_that_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"ask": "q", "reply": "a", "given": "x", "key": 7, "answer": "no"}, {"messages": TALKS[0]["messages"]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    first, second = read_rows(path, columns={"prompt": "ask", "query": "given", "response": "reply", "id": "key"})
    assert first.messages == (("user", "q\n\nx"), ("assistant", "a")) and first.id == "7" and first.raw == rows[0]
    assert second.messages == SAID[0]  # it has none of the columns
    (first, _) = read_rows(path, columns={"text": "reply"})
    assert first.messages == (("prompt", ""), ("completion", "a"))
    for columns, says in (
        ({"prompt": "ask"}, "must say what is asked and what is learned"),
        ({"question": "ask", "response": "reply"}, "task.columns names .*messages, .*prompt"),
        ({"prompt": "ask", "instruction": "given", "response": "reply"}, "means the same as another"),
        ({"prompt": "nowhere", "response": "at all"}, r"no row has a column of task\.columns \(nowhere, at all\)"),
    ):
        with pytest.raises(InputError, match=says):
            read_rows(path, columns=columns)
    path.write_text(json.dumps({"reply": "a"}) + "\n" + json.dumps(rows[0]))
    with pytest.raises(InputError, match=r"lacks the column ask, of task\.columns; it has reply"):
        read_rows(path, columns={"prompt": "ask", "response": "reply"}, on_bad_row="raise")


# --- LLaMA-Factory ---------------------------------------------------------------------------------------------------

INFO = {
    "alpaca": {"file_name": "alpaca.json"},
    "columns": {
        "file_name": "columns.json",
        "columns": {"prompt": "ask", "query": "given", "response": "reply", "system": "sys", "history": "before"},
    },
    "glaive": {
        "file_name": "glaive.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "tools": "tools", "system": "sys"},
    },
    "tagged": {
        "file_name": "tagged.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "talk"},
        "tags": {"role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "you"},
    },
    "openai": {"file_name": "openai.jsonl", "formatting": "openai", "columns": {"messages": "messages"}},
    "openai_tagged": {
        "file_name": "openai_tagged.jsonl",
        "formatting": "openai",
        "columns": {"messages": "messages"},
        "tags": {"role_tag": "speaker", "content_tag": "said", "user_tag": "customer"},
    },
    "kto": {
        "file_name": "kto.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "kto_tag": "label"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    },
    "dpo": {"file_name": "dpo.json", "ranking": True, "formatting": "sharegpt"},
    "mllm": {"file_name": "a.json", "formatting": "sharegpt", "columns": {"messages": "m", "images": "images"}},
    "drawn": {"file_name": "alpaca.json", "num_samples": 10},
    "elsewhere": {"ms_hub_url": "some/where"},
    "strange": {"file_name": "alpaca.json", "colour": "blue"},
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
TOOL = {"name": "weather", "description": "Of a city.", "parameters": {"type": "object"}}
SAMPLES = {
    "alpaca.json": [
        {"instruction": "Add.", "input": "2 and 12", "output": "14"},
        {"instruction": "Say hello.", "input": "", "output": "hello"},
    ],
    "columns.json": [
        {"ask": "q", "given": "x", "reply": "a", "sys": "Be brief.", "before": [["q0", "a0"]], "output": "no"},
    ],
    "glaive.json": [
        {
            "conversations": [
                {"from": "human", "value": "Weather in Paris?"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Paris"}}'},
                {"from": "observation", "value": '{"sky": "blue"}'},
                {"from": "gpt", "value": "It is sunny."},
            ],
            "tools": json.dumps([TOOL]),
        }
    ],
    "tagged.jsonl": [{"talk": [{"who": "me", "what": "q"}, {"who": "you", "what": "a"}]}],
    "openai.jsonl": [TALKS[0]],
    "openai_tagged.jsonl": [
        {"messages": [{"speaker": "customer", "said": "q"}, {"speaker": "assistant", "said": "a"}]},
    ],
    "kto.json": [{**talk, "label": i == 1} for i, talk in enumerate(TALKS[:2])],
}


@pytest.fixture(scope="module")
def factory(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("factory")
    for name, rows in SAMPLES.items():
        lines = "\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows, indent=2)
        (folder / name).write_text(lines)
    (folder / "dataset_info.json").write_text(json.dumps(INFO))
    return folder


def test_llama_factorys_samples(factory, caplog):
    def of(name: str):
        return read_rows(f"{factory}/dataset_info.json:{name}")

    assert [row.messages for row in of("alpaca")] == [
        (("user", "Add.\n2 and 12"), ("assistant", "14")),  # as it joins them
        (("user", "Say hello."), ("assistant", "hello")),
    ]
    assert [row.id for row in of("alpaca")] == ["alpaca:1", "alpaca:2"]
    before = (("system", "Be brief."), ("user", "q0"), ("assistant", "a0"))
    assert [row.messages for row in of("columns")] == [(*before, ("user", "q\nx"), ("assistant", "a"))]
    (row,) = of("glaive")
    assert [role for role, _ in row.messages] == ["user", "assistant", "tool", "assistant"]
    assert row.messages[1] == ("assistant", "") and row.more == {1: {"tool_calls": [CALL]}}
    assert row.tools == ({"type": "function", "function": TOOL},) and row.learned == (1, 3)
    assert [row.messages for row in of("tagged")] == [(("user", "q"), ("assistant", "a"))]
    assert [row.messages for row in of("openai")] == SAID[:1]
    assert [row.messages for row in of("openai_tagged")] == [(("user", "q"), ("assistant", "a"))]
    assert [row.messages for row in of("kto")] == SAID[1:2]
    assert "1 of 2 rows" in caplog.text and "1 with label false" in caplog.text
    assert [row.dataset for row in of("alpaca,tagged")] == ["alpaca", "alpaca", "tagged"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (":dpo", "dpo is of pairs of answers"),
        (":mllm", "mllm has images"),
        (":drawn", "num_samples"),
        (":elsewhere", "is at ms_hub_url, which is not read"),
        (":strange", "says colour, which is not known"),
        (":nowhere", "lists no dataset 'nowhere', but alpaca"),
        ("", "lists 12 datasets; say which"),
    ],
)
def test_what_llama_factorys_list_cannot_mean(factory, name, says):
    with pytest.raises(InputError, match=says):
        read_rows(f"{factory}/dataset_info.json{name}")
