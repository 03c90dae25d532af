"""The only program of this project that reads pickles; `entries` starts it, and only after --trust-pickle.

It reads what it is to do from stdin, as JSON, and sends frames to stdout: ``begin`` before it touches an entry, so that
one that kills it is known by name, then the entry's sources and results as raw arrays, or why there are none.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from whiteboard.integration.legacy.database import connect
from whiteboard.integration.legacy.wire import send
from whiteboard.ops.user_module import referenced

_RAW, _PICKLE = 1, 4  # diskcache's modes of a value; the others are bytes and text in files
_SHOWN = 80

_ROW = "SELECT key, raw, expire_time, mode, filename, value FROM Cache WHERE rowid = ?"


_connected = cache(connect)


class _Left(Exception):
    """An entry that is left out on purpose."""


def _diskcache(folder: Path, entry: tuple[str, int]) -> tuple[Any, Any]:
    """Return the key and the value of a row."""
    path = folder / entry[0]
    row = _connected(path).execute(_ROW, (entry[1],)).fetchone()
    if row is None:
        why = "gone since the folder was listed"
        raise _Left(why)
    key, raw, expires, mode, filename, value = row
    if expires is not None and expires < time.time():
        why = "expired"
        raise _Left(why)
    if not raw:
        key = pickle.loads(key)
    if mode != _PICKLE:
        msg = f"the value is {type(value).__name__ if mode == _RAW else 'bytes or text'}, not (y, grads)"
        raise TypeError(msg)
    return key, pickle.loads(value if filename is None else (path.parent / filename).read_bytes())


def _joblib(folder: Path, entry: tuple[str, int]) -> tuple[Any, Any]:
    """Return the arguments, as text by name, and the value of a result."""
    import joblib

    path = folder / entry[0]
    said = json.loads(path.with_name("metadata.json").read_text("utf-8"))
    return said["input_args"], joblib.load(path)


def _package(made: Any, value: Any) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return the parameters, and sources, y and gradients in one list."""
    params: Mapping[str, Any] = {}
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Mapping):
        made, params = made
    if not isinstance(made, tuple | list) or not made:
        msg = f"the function returned {type(made).__name__}: expected a list of arrays, (list, params), or None"
        raise TypeError(msg)
    if not isinstance(value, tuple | list) or len(value) != 2:
        msg = f"the value is {type(value).__name__}, not (y, grads)"
        raise TypeError(msg)
    y, grads = value
    grads = list(grads) if isinstance(grads, tuple | list) else [grads]
    arrays = [_plain(array) for array in (*made, y, *grads)]
    return {"params": {str(name): _json(each) for name, each in params.items()}, "sources": len(made)}, arrays


def _plain(array: Any) -> NDArray[Any]:
    array = np.asarray(array)
    if array.dtype.kind not in "biufc":
        msg = f"an array of dtype {array.dtype}"
        raise TypeError(msg)
    # (ascontiguousarray would make one dimension of none)
    return np.array(array, array.dtype.newbyteorder("="), order="C", copy=None)


def _json(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple | list):
        return [_json(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _json(each) for name, each in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    msg = f"a parameter of type {type(value).__name__}"
    raise TypeError(msg)


def _work(out: BinaryIO, request: dict[str, Any]) -> None:
    try:
        function = referenced(request["function"])
    except ImportError as error:
        return send(out, {"state": "fatal", "why": f"--sources {request['function']}: {error}"})
    if request["kind"] == "joblib":
        try:
            import joblib  # noqa: F401
        except ImportError as error:
            why = f"to read its results joblib is needed: pip install joblib ({error})"
            return send(out, {"state": "fatal", "why": why})
    read = _diskcache if request["kind"] == "diskcache" else _joblib
    folder = Path(request["folder"])
    for number, (name, row) in request["entries"]:
        send(out, {"state": "begin", "number": number})
        shown = ""
        try:
            asked, value = read(folder, (name, row))
            shown = repr(asked)
            made = function(asked)
            if made is None:
                send(out, {"state": "left", "number": number, "why": "the function returned None"})
                continue
            fields, arrays = _package(made, value)
        except _Left as error:
            send(out, {"state": "left", "number": number, "why": str(error)})
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            send(out, {"state": "failed", "number": number, "shown": shown[:_SHOWN], "why": why})
        else:
            send(out, {"state": "package", "number": number, "shown": shown[:_SHOWN], **fields}, arrays)
    return None


def main() -> None:
    """Do what stdin says."""
    request = json.load(sys.stdin)
    # What unpickled code prints must not get between the frames.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        _work(out, request)


if __name__ == "__main__":
    main()
