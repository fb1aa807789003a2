"""Files are told apart by all of their bytes, or by some of them."""

from __future__ import annotations

import hashlib

import numpy as np

from tasks.common.identity import hash_file

BLOCK = 64 * 2**10


def test_files_are_told_apart_wherever_their_blocks_differ(tmp_path):
    content = np.random.default_rng(0).bytes(20 * BLOCK + 5)
    path, known = tmp_path / "a", set()
    path.write_bytes(content)
    assert hash_file(path) == hash_file(path, blocks=40) == hashlib.sha256(content).hexdigest()
    sampled = hash_file(path, blocks=5)
    for place in (0, 5 * BLOCK + 10, 15 * BLOCK + 10, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        known |= {hash_file(path, blocks=5)}
    assert len(known | {sampled}) == 5
    path.write_bytes(content + b"x")
    assert hash_file(path, blocks=5) not in known | {sampled}
    assert hash_file(tmp_path / "nothing") is None


def test_two_blocks_are_the_ends_of_a_file_of_any_size(tmp_path):
    for size in (0, 10, BLOCK + 10, 3 * BLOCK):
        content = np.random.default_rng(0).bytes(size)
        (tmp_path / "a").write_bytes(content)
        expected = hashlib.sha256(f"{size}\n".encode() + content[:BLOCK] + content[max(0, size - BLOCK) :])
        assert hash_file(tmp_path / "a", blocks=2) == expected.hexdigest()
