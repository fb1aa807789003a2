"""Why transformers does not read a model or a tokenizer, in one line."""

from __future__ import annotations


def reason(error: Exception) -> str:
    """The error's first line; where it asks for the code of a model's folder to be run, that this is not done."""
    if "trust_remote_code" in str(error):
        return "it needs code of its own to be run, which is not done; use a model of transformers' own classes"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
