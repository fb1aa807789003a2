"""Files of conversations that stand in for a user's own."""

from __future__ import annotations

import json
from pathlib import Path

TALK = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "What is 2 plus 12?\n"},
    {"role": "assistant", "content": "  14. Ça va "},
    {"role": "user", "content": "And \u2028 then?"},
    {"role": "assistant", "content": "Nothing 更多"},
]


def write_conversations(folder: Path, candidates: int = 40, targets: int = 20) -> None:
    """candidates.jsonl, in turn `messages` and `prompt`/`completion`, and targets.jsonl of two subtasks."""
    folder.mkdir(parents=True)

    def row(name: str, i: int) -> dict[str, object]:
        question, answer = f"What is {i} and {i % 7}?", f"it is {i + i % 7}"
        if name == "candidates" and i % 2:
            return {"prompt": question, "completion": answer}
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"messages": turns, **({"subtask": "odd" if i % 2 else "even"} if name == "targets" else {})}

    for name, count in (("candidates", candidates), ("targets", targets)):
        lines = [json.dumps(row(name, i + 100 * (name == "targets"))) for i in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def write_model(folder: Path, **sizes: int) -> Path:
    """A LLaMA of a few thousand random weights and its tokenizer, as transformers saves them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tasks.common.training import seeded
    from tasks.instruction.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([turn["content"] for turn in TALK], 300)
    config = {
        "vocab_size": 512,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        **sizes,
    }
    with seeded(0):
        LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_files(folder: Path) -> None:
    """What a user of their own files has: conversations, and a model."""
    write_conversations(folder)
    write_model(folder / "model")
