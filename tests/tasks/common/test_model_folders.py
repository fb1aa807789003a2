"""What a model's folder may hold, and what it may ask for."""

from __future__ import annotations

import json
import os

import pytest

from tarot import InputError
from tasks.common.model_folders import MOST_LAYERS, refuse_odd_files


@pytest.mark.parametrize("place", ["../elsewhere.safetensors", "/elsewhere.safetensors", "", "..", None, 3])
def test_weights_are_those_of_the_folder(tmp_path, place):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": place}}))
    with pytest.raises(InputError, match=r"index\.json does not say which files of its folder"):
        refuse_odd_files(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model-00001-of-00001.safetensors")
    with pytest.raises(InputError, match="is no file but a pipe"):
        refuse_odd_files(tmp_path)


@pytest.mark.parametrize(
    ("asks", "message"),
    [
        ({"attn_implementation": "somebody/kernels"}, "asks for attn_implementation .*code on the hub"),
        ({"text_config": {"_attn_implementation": "a/b:c"}}, "asks for _attn_implementation .*code on the hub"),
        ({"attn_implementation": {"": "sdpa", "vision": "a/b"}}, "code on the hub"),
        ({"experts_implementation": "a/b"}, "code on the hub"),
        ({"num_hidden_layers": MOST_LAYERS + 1}, "more than 10,000"),
        ({"parts": [{"encoder_layers": 10**30}]}, "more than 10,000"),
    ],
)
def test_a_config_asks_for_no_code_and_for_some_layers(tmp_path, asks, message):
    inner = tmp_path / "model"
    inner.mkdir()
    (inner / "config.json").write_text(json.dumps(asks))
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(inner)}))
    for folder in (inner, adapters):
        with pytest.raises(InputError, match=message):
            refuse_odd_files(folder)


def test_what_models_have_is_read(tmp_path):
    said = {"attn_implementation": "sdpa", "num_hidden_layers": 80, "layer_types": ["full_attention"], "dtype": None}
    (tmp_path / "config.json").write_text(json.dumps(said))
    listed = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(listed))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    (tmp_path / "README.md").symlink_to("nowhere")
    refuse_odd_files(tmp_path)
