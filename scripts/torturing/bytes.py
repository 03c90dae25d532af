"""Give the decoder mutated pages: none may be accepted, and with a forged digest none may crash, hang or fill memory.

The decoding is done by a process that is watched: it must go on within a minute, end by itself, and stay under the
most bytes that a page may decode to.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from scripts.torturing.workload import finish, page_of
from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page.codec import DEFAULT, MAX_BYTES, Encoding
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import Blob, decode_page, encode_page

SLACK = 400 * 2**20
"""Bytes that the interpreter, and the blobs themselves, may take besides."""

STEP = 1000
PATIENCE = 60.0


def corpus() -> list[Blob]:
    """Return pages of several dtypes and shapes: raw, compressed, with and without provenance, empty."""
    rng = np.random.default_rng(0)
    pages = [page_of("a", range(n), size) for n, size in ((1, 1), (3, 8), (40, 16), (16, 200))]
    for dtype in ("f4", "f8", "i8", "u1", "c16"):
        keys = rng.integers(0, 256, (64, 16), np.uint8)
        smooth = np.linspace(0, 9, 64 * 30).reshape(64, 5, 6).astype(dtype)
        ids = np.arange(128, dtype=np.int64).reshape(64, 2)
        pages.append(Page("smooth", keys, {"y": smooth, "g0": np.zeros((64, 3000), dtype)}, 1, ids, ids))
    whole = page_of("b", range(30), 16)
    pages.append(replace(whole, sources=(whole.arrays["y"], whole.arrays["y"][:, :3].copy())))
    pages.append(Page("empty", np.zeros((0, 16), np.uint8), {"y": np.zeros((0, 3))}))
    encodings = (DEFAULT, Encoding("lz4", 5), Encoding("blosclz", 5))
    return [encode_page(page, encoding).joined() for page in pages for encoding in encodings]


def mutated(chance: random.Random, blob: Blob, others: list[Blob]) -> Blob:
    """Return a blob that differs from every one of the corpus."""
    header, digest, data = bytearray(blob.header), bytearray(blob.digest), bytearray(blob.data)
    match chance.randrange(8):
        case 0:
            _flip(chance, header)
        case 1:
            _flip(chance, data or header)
        case 2:
            _flip(chance, digest)
        case 3:
            part = chance.choice([header, data])
            del part[chance.randrange(len(part) + 1) :]
        case 4:
            part = chance.choice([header, data])
            place = chance.randrange(len(part) + 1)
            part[place:place] = chance.randbytes(chance.choice([1, 2, 16, 300]))
        case 5:
            header = _edited(chance, header)
        case 6:
            # The first bytes of an array are the header of its chunk.
            entries = json.loads(bytes(header))["arrays"]
            start = chance.choice(entries)[4]
            for _ in range(chance.choice([1, 2, 5])):
                if start < len(data):
                    place = min(len(data) - 1, start + chance.randrange(40))
                    data[place] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        case _:
            other = chance.choice(others)
            header, data = chance.choice([(header, bytearray(other.data)), (bytearray(other.header), data)])
    made = Blob(bytes(header), bytes(digest), bytes(data))
    if any((made.header, made.data, made.digest) == (each.header, each.data, each.digest) for each in others):
        return mutated(chance, blob, others)
    return made


def _flip(chance: random.Random, part: bytearray) -> None:
    for _ in range(chance.choice([1, 1, 2, 30])):
        part[chance.randrange(len(part))] ^= 1 << chance.randrange(8)


def _edited(chance: random.Random, header: bytearray) -> bytearray:
    """Change one field of the header to something that JSON can say."""
    meta: dict[str, Any] = json.loads(bytes(header))
    odd: list[Any] = [
        None,
        -1,
        0,
        1,
        2**31,
        2**63,
        10**30,
        1.5,
        "",
        "O",
        "V8",
        "<f8",
        "blosc2",
        "raw",
        [],
        [1],
        {},
        True,
    ]
    if chance.random() < 0.2:
        meta[chance.choice(["op", "n", "cost_ns", "arrays"])] = chance.choice(odd)
        return bytearray(json.dumps(meta).encode())
    entry = chance.choice(meta["arrays"])
    field = chance.randrange(6)
    if field == 2 and entry[2]:
        entry[2][chance.randrange(len(entry[2]))] = chance.choice([0, 1, -1, 7, 10**6, 10**8, 2**40, 2**62, None])
    else:
        entry[field] = chance.choice(odd)
    return bytearray(json.dumps(meta).encode())


_BLOCKS = re.compile(rb'\A\{"blocks":\[\d+,"[^"]*"\],')


def _answers(page: Page) -> bytes:
    """Return all that a page answers with."""
    arrays = [page.keys, *(page.arrays[name] for name in sorted(page.arrays))]
    return repr([(each.dtype, each.shape, each.tobytes()) for each in arrays]).encode()


def work(seed: int, count: int, *, forged: bool) -> None:
    """Decode `count` mutated blobs, and say every thousand of them how it goes."""
    limit = MAX_BYTES + SLACK
    # Twice the bound for addresses, as a decoded array and its blob are both mapped; what is resident is measured.
    resource.setrlimit(resource.RLIMIT_AS, (3 * limit, 3 * limit))
    chance = random.Random(seed)
    blobs = corpus()
    answers = {_answers(decode_page(blob)) for blob in blobs}
    accepted = refused = 0
    for number in range(count):
        blob = mutated(chance, chance.choice(blobs), blobs)
        if forged:
            # A header without blocks has a digest over all, which fits any data.
            header = _BLOCKS.sub(b"{", blob.header)
            blob = Blob(header, digest_of(header, blob.data), blob.data)
        whole = chance.random() < 0.5
        try:
            page = decode_page(blob, provenance=whole)
            # What answers nobody is not read, and so not looked at: then the answers have to be those of a true page.
            accepted += forged or whole or _answers(page) not in answers
            refused += not (forged or whole or _answers(page) not in answers)
        except CorruptPackageError:
            refused += 1
        if (number + 1) % STEP == 0 or number + 1 == count:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps({"accepted": accepted, "refused": refused, "peak_bytes": peak}), flush=True)


def watched(seed: int, count: int, *, forged: bool) -> dict[str, Any]:
    """Run `work` in a process of its own and return what it said last, and what was wrong with it."""
    command = [sys.executable, __file__, "--work", str(count), "--seed", str(seed), *["--forged"] * forged]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said: dict[str, Any] = {"accepted": 0, "refused": 0, "peak_bytes": 0}
    seen = _Lines(process)
    last, wrong = time.monotonic(), []
    while (line := seen.next(PATIENCE)) is not None:
        if line:
            said, last = json.loads(line), time.monotonic()
        elif time.monotonic() - last > PATIENCE:
            process.kill()
            wrong.append("it hangs")
    if process.wait() != 0:
        wrong.append(f"it ended with status {process.returncode}")
    if said["accepted"] + said["refused"] != count:
        wrong.append(f"it decoded {said['accepted'] + said['refused']} of {count}")
    if said["peak_bytes"] > MAX_BYTES + SLACK:
        wrong.append(f"it took {said['peak_bytes']} bytes of memory")
    if said["accepted"] and not forged:
        wrong.append(f"{said['accepted']} were accepted")
    return {**said, "wrong": wrong}


class _Lines:
    """The lines of a process, with a bound on the wait for each."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        import queue
        import threading

        self._lines: queue.Queue[str | None] = queue.Queue()
        self._empty = queue.Empty
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def next(self, seconds: float) -> str | None:
        """Return the next line, an empty one where none came in time, None at the end."""
        try:
            return self._lines.get(timeout=seconds)
        except self._empty:
            return ""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blobs", type=int, default=200_000, help="mutated blobs, with the digest as it was")
    parser.add_argument("--forge", type=int, default=100_000, help="mutated blobs with a digest that fits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--forged", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(options.seed, options.work, forged=options.forged)
        return
    plain = watched(options.seed, options.blobs, forged=False)
    print(f"mutated: {plain}", flush=True)
    forged = watched(options.seed + 1, options.forge, forged=True)
    print(f"with a forged digest: {forged}", flush=True)
    finish("bytes", {"mutated": plain, "forged": forged, "wrong": len(plain["wrong"]) + len(forged["wrong"])})


if __name__ == "__main__":
    main()
