import json
import os
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from tarot.common.errors import InputError
from tarot.features.arrays import read_block, read_rows
from tarot.features.readers import file_identity, read_vector
from tarot.features.row_names import row_ids
from tarot.features.store import open_features

FEATURES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def assert_reads(path, expected=FEATURES, **options):
    rows = open_features(path, **options)
    assert tuple(rows.shape) == expected.shape
    np.testing.assert_array_equal(read_block(rows, 1, 5), expected[1:5])
    np.testing.assert_array_equal(read_rows(rows, np.array([5, 0])), expected[[5, 0]])
    return rows


def test_npy_is_memory_mapped(tmp_path):
    np.save(tmp_path / "x.npy", FEATURES)
    assert isinstance(assert_reads(tmp_path / "x.npy"), np.memmap)


@pytest.mark.parametrize("save", [np.save, lambda path, x: path.write_bytes(pickle.dumps(x))])
def test_a_pickle_is_refused_and_never_loaded(tmp_path, save):
    class Bomb:
        def __reduce__(self):
            return (tmp_path / "exploded").touch, ()

    save(tmp_path / "x.npy", np.array([[Bomb()]], dtype=object))
    with pytest.raises(InputError, match=r"x\.npy is not a plain \.npy array.*Pickled objects are never loaded"):
        open_features(tmp_path / "x.npy")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", ["", "1.0, 2.0\n"])
def test_a_file_of_another_format_is_not_said_to_be_a_pickle_that_could_be_loaded(tmp_path, content):
    (tmp_path / "x.npy").write_text(content)
    for read in (open_features, lambda path: read_vector(path, "labels", 2)):
        with pytest.raises(InputError, match=r"numpy\.save did not write it") as error:
            read(tmp_path / "x.npy")
        assert "allow_pickle" not in str(error.value)


def test_safetensors(tmp_path):
    tensor = torch.from_numpy(FEATURES)
    save_file({"features": tensor, "labels": torch.zeros(6)}, tmp_path / "one.safetensors")
    assert_reads(tmp_path / "one.safetensors")
    save_file({"a": tensor.half(), "b": tensor.bfloat16()}, tmp_path / "two.safetensors")
    assert_reads(tmp_path / "two.safetensors", FEATURES.astype(np.float16), tensor="a")
    assert_reads(tmp_path / "two.safetensors", tensor.bfloat16().float().numpy(), tensor="b")
    with pytest.raises(InputError, match="exactly one two-dimensional tensor"):
        open_features(tmp_path / "two.safetensors")
    with pytest.raises(InputError, match="no tensor 'c'"):
        open_features(tmp_path / "two.safetensors", tensor="c")
    whole = (tmp_path / "one.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-9])
    with pytest.raises(InputError, match="not a whole"):
        open_features(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_as_torch_and_less_save_them(tmp_path, legacy):
    tensor, path = torch.from_numpy(FEATURES), tmp_path / "all_orig.pt"
    torch.save(tensor, path, _use_new_zipfile_serialization=not legacy)
    assert_reads(path)
    torch.save(tensor.half().requires_grad_(), path, _use_new_zipfile_serialization=not legacy)
    assert_reads(path, FEATURES.astype(np.float16))
    torch.save({"grads": tensor, "labels": torch.zeros(6), "note": "x"}, path)
    assert_reads(path)
    torch.save({"a": tensor, "b": 2 * tensor}, path)
    assert_reads(path, 2 * FEATURES, tensor="b")
    with pytest.raises(InputError, match="exactly one two-dimensional tensor"):
        open_features(path)
    for content in ([tensor], {"lr": 1.0}, "text"):
        torch.save(content, path)
        with pytest.raises(InputError, match="must hold a tensor"):
            open_features(path)


def test_archives_of_arrays(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, features=FEATURES)
    assert_reads(path)
    np.savez_compressed(path, a=FEATURES, labels=np.zeros(6), b=2 * FEATURES)
    assert_reads(path, 2 * FEATURES, tensor="b")
    with pytest.raises(InputError, match="exactly one two-dimensional tensor"):
        open_features(path)
    with pytest.raises(InputError, match=r"no tensor 'c'; it has {'a': \[6, .*'labels': \[6\]"):
        open_features(path, tensor="c")
    np.savez(path, labels=np.zeros(6))
    with pytest.raises(InputError, match="two dimensions"):
        open_features(path)
    np.savez(path)
    with pytest.raises(InputError, match="it is empty"):
        open_features(path)
    path.write_text("no archive")
    with pytest.raises(InputError, match=r"x.npz is not a plain .npz archive: numpy.savez did not write it. Pickled"):
        open_features(path)
    np.savez(path, features=FEATURES)
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # of the member, and in the list of members
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x.npz is not a plain .npz archive: .* is encrypted"):
        open_features(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("features.npy", bytes(1000))
    packed = path.read_bytes()
    path.write_bytes(packed.replace(packed[42 + 4 + 2 : 42 + 4 + 9], b"\xff" * 7, 1))  # the settings of the packing
    with pytest.raises(InputError, match=r"x.npz is not a plain .npz archive"):
        open_features(path)
    table = pa.table({"features": [[1.0, 1e300]]})
    for columns in (table, pa.table({"a": [1.0], "b": [1e300]})):
        pq.write_table(columns, tmp_path / "large.parquet")
        with pytest.raises(InputError, match=r"1e\+300, which is too large for float32"):
            open_features(tmp_path / "large.parquet")


@pytest.mark.parametrize("name", ["x.pt", "old.pt", "x.npz"])
def test_objects_in_archives_are_refused_and_never_loaded(tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return (tmp_path / "exploded").touch, ()

    bomb, path = Bomb(), tmp_path / name
    if name == "x.npz":
        np.savez(path, features=np.array([[bomb]], dtype=object))
    else:
        torch.save({"features": bomb}, path, _use_new_zipfile_serialization=name == "x.pt")
    with pytest.raises(InputError, match=f"{name} .*Pickled objects are never loaded"):
        open_features(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=name):
        open_features(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("kind", ["columns", "list", "large_list", "fixed"])
def test_parquet(tmp_path, kind):
    if kind == "columns":
        table = pa.table({f"f{i}": FEATURES[:, i] for i in range(4)})
    else:
        types = {"list": pa.list_, "large_list": pa.large_list, "fixed": lambda t: pa.list_(t, 4)}
        column = pa.array(FEATURES.tolist(), types[kind](pa.float32()))
        table = pa.table({"id": list("abcdef"), "features": column})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=4)
    assert_reads(tmp_path / "x.parquet")
    names = None if kind == "columns" else list("abcdef")
    assert names == (None if (ids := row_ids(open_features(tmp_path / "x.parquet"))) is None else ids.tolist())


def test_a_column_of_numbers_that_is_called_id_is_no_feature(tmp_path):
    pq.write_table(pa.table({"id": range(6), **{f"f{i}": FEATURES[:, i] for i in range(4)}}), tmp_path / "x.parquet")
    assert_reads(tmp_path / "x.parquet")
    assert row_ids(open_features(tmp_path / "x.parquet")).tolist() == list(range(6))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": [1.0, 2.0], "name": ["x", "y"]}, "'name' is string"),
        ({"a": [1.0, None]}, "missing values"),
        ({"id": ["x", None], "a": [1.0, 2.0]}, "column 'id' has missing values: each row needs a name"),
        ({"a": [[1.0, 2.0], [3.0]]}, "different lengths, from 1 to 2"),
        ({"a": [[1.0], None]}, "missing rows"),
        ({"a": [[1.0, None], [2.0, 3.0]]}, "without gaps"),
        ({"a": [["x"], ["y"]]}, "must hold numbers"),
        ({"a": [{"b": 1.0}, {"b": 2.0}]}, "lists of numbers"),
    ],
)
def test_parquet_that_is_no_matrix_is_refused_by_column(tmp_path, columns, words):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=words):
        open_features(tmp_path / "x.parquet")


def trak_model(folder, done=6, grads=True):
    """What traker's MmapSaver leaves of one model: .npy files that are called .mmap."""
    folder.mkdir(parents=True)
    for name, array in {
        "_is_featurized": (np.arange(6) < done).astype(np.int32)[:, None],
        "features": -FEATURES.astype(np.float16),
        **({"grads": FEATURES.astype(np.float16)} if grads else {}),
    }.items():
        with open(folder / f"{name}.mmap", "wb") as file:
            np.save(file, array)


def test_a_trak_run_gives_its_projected_gradients(tmp_path):
    trak_model(tmp_path / "run" / "0")
    for path in ("run", "run/0", "run/0/grads.mmap"):
        assert_reads(tmp_path / path, FEATURES.astype(np.float16))
    assert_reads(tmp_path / "run/0/features.mmap", -FEATURES.astype(np.float16))
    trak_model(tmp_path / "run" / "1")
    with pytest.raises(InputError, match=r"holds 2 models; give one: .*0, .*1"):
        open_features(tmp_path / "run")


def test_an_incomplete_trak_run_is_refused(tmp_path):
    """Ledger L-24: rows that were never collected are zeros in the map."""
    trak_model(tmp_path / "a", done=4)
    with pytest.raises(InputError, match="2 of 6 rows were never featurized, the first is 4"):
        open_features(tmp_path / "a")
    trak_model(tmp_path / "b", grads=False)
    with pytest.raises(InputError, match=r"grads\.mmap was deleted"):
        open_features(tmp_path / "b")


def test_traker_itself_writes_what_is_read(tmp_path):
    savers = pytest.importorskip("trak.savers")
    metadata = {"JL dimension": 4, "JL matrix type": "normal", "train set size": 6}
    saver = savers.MmapSaver(
        tmp_path, metadata, train_set_size=6, proj_dim=4, load_from_save_dir=True, logging_level=30,
        use_half_precision=False,
    )  # fmt: skip
    saver.register_model_id(0, False)
    saver.current_store["grads"][:] = FEATURES
    saver.current_store["is_featurized"][:] = 1
    saver.current_store["grads"].flush(), saver.current_store["is_featurized"].flush()
    assert_reads(tmp_path)


def bergson_index(folder, rows=FEATURES, dtype="float32", **info):
    """What `bergson build` leaves of its gradients: of two modules, side by side; dtypes are named as in its info.json,
    by newer versions or older ones."""
    folder.mkdir(parents=True)
    names = {"<f4": "float32", "|V2": "bfloat16"}
    stored = torch.from_numpy(rows).to(getattr(torch, names.get(dtype, dtype)))
    (folder / "gradients.bin").write_bytes(stored.view(torch.uint8).numpy().tobytes())
    sizes = {"layers.0.q_proj": 1, "layers.0.v_proj": rows.shape[1] - 1}
    known = {"num_grads": len(rows), "grad_sizes": sizes, "base_dtype": dtype, "dtype": {"names": list(sizes)}}
    (folder / "info.json").write_text(json.dumps({**known, **info}))
    return folder


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bfloat16", "<f4", "|V2"])
def test_a_bergson_index_is_its_gradients(tmp_path, dtype):
    rows = FEATURES.astype(np.float16).astype(np.float32)
    kept = torch.from_numpy(rows).bfloat16().float().numpy() if dtype in ("bfloat16", "|V2") else rows
    assert_reads(bergson_index(tmp_path / "run", rows, dtype), kept)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_shards_of_a_bergson_run_are_one(tmp_path, dtype):
    for number, part in enumerate((FEATURES[:3], FEATURES[3:4], FEATURES[4:])):
        bergson_index(tmp_path / "run" / "shards" / f"0000{number}-of-00003", part, dtype)
    kept = torch.from_numpy(FEATURES).to(getattr(torch, dtype)).float().numpy()
    found = assert_reads(tmp_path / "run", kept)
    for part in (np.array([5, 0, 3, 0]), slice(2, 2), np.array([], dtype=np.int64), slice(None, None, 2)):
        np.testing.assert_array_equal(torch.as_tensor(found[part]).float().numpy(), kept[part])
    (tmp_path / "run/shards/00001-of-00003").rename(tmp_path / "run/shards/00001-of-00003.part")
    with pytest.raises(InputError, match="1 of 3 shards are missing, the first is 00001"):
        open_features(tmp_path / "run")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "gradients.bin").write_bytes(b"short"), r"gradients\.bin is damaged: .*it has 5"),
        (lambda run: (run / "info.json").unlink(), r"info\.json is not what bergson writes"),
        (
            lambda run: (run / "info.json").write_text('{"num_grads": 6}'),
            r"info\.json is not what bergson .*grad_sizes",
        ),
        (lambda run: (run / "info.json").write_text("[1]"), r"info\.json is not what bergson"),
        (lambda run: np.save(run / "offsets.npy", np.zeros(3)), "a gradient for every token"),
    ],
)
def test_a_bergson_index_that_cannot_be_read_is_refused(tmp_path, spoil, words):
    run = bergson_index(tmp_path / "run")
    spoil(run)
    with pytest.raises(InputError, match=words):
        open_features(run)


def test_what_an_info_json_may_say(tmp_path):
    for number, (info, words) in enumerate(
        (
            ({"num_grads": -6}, "positive integers"),
            ({"grad_sizes": {}}, "positive integers"),
            ({"base_dtype": "object"}, "is not what bergson writes"),
            ({"base_dtype": ["float32"]}, "is not what bergson writes"),
        )
    ):
        run = bergson_index(tmp_path / f"{number}", **info)
        with pytest.raises(InputError, match=words):
            open_features(run)
    with pytest.raises(InputError, match="a run that is not done"):
        open_features(bergson_index(tmp_path / "run.part"))


@pytest.mark.parametrize("name", ["nowhere.npy", "x.csv", "folder"])
def test_what_is_no_feature_file_is_refused(tmp_path, name):
    (tmp_path / "x.csv").write_text("1,2")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=name):
        open_features(tmp_path / name)


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.zeros(3), np.array([["a"]]), np.ones((2, 2), complex)])
def test_an_array_that_is_no_matrix_of_numbers_is_refused(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=r"x\.npy"):
        open_features(tmp_path / "x.npy")


@pytest.mark.parametrize("kind", ["npy", "safetensors", "parquet"])
def test_a_pipe_in_place_of_features_is_not_waited_for(tmp_path, kind):
    os.mkfifo(tmp_path / f"x.{kind}")
    with pytest.raises(InputError, match=rf"x\.{kind} is no file"):
        open_features(tmp_path / f"x.{kind}")


def test_the_identity_of_a_folder_has_what_lies_behind_links(tmp_path):
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere")
    np.save(tmp_path / "elsewhere" / "x.npy", FEATURES)
    ((place, size, _),) = file_identity(tmp_path / "here")
    assert place == str(tmp_path / "elsewhere" / "x.npy") and size == (tmp_path / "elsewhere" / "x.npy").stat().st_size
