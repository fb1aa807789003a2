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
