"""A mutant is one way to make something valid hostile; a bit that flips is one that anything has."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to make something hostile; `make` writes it under a path."""

    name: str
    make: Callable[[Path], None]


def flipped(content: bytes, seed: int) -> Callable[[Path], None]:
    """Return what writes a content with some bits flipped, and perhaps cut."""

    def make(path: Path) -> None:
        chance = random.Random(seed)
        data = bytearray(content)
        for _ in range(chance.choice([1, 1, 1, 8])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if not chance.randrange(4):
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)

    return make
