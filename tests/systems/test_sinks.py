"""Sinks: results arrive in order, and as strict JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard import BatchResult, CallbackSink, JsonlSink, ListSink, NullSink, OpResult
from whiteboard.errors import ParamError, SinkError
from whiteboard.systems.history import Commit

RESULT = OpResult("a", None, np.array([1.5, np.nan]), (np.array([np.inf, -np.inf]),), "miss")
BATCH = BatchResult(
    range(2),
    np.array([7, 8]),
    np.array([1.0, 2.0]),
    (np.array([[3.0], [4.0]]),),
    np.array([0, 2], np.uint8),
    np.array([[1], [2]]),
    np.array([[0], [5]]),
)


def test_list_and_callback_sinks_get_results_in_order() -> None:
    """A list keeps what is published, a callback is called with it, a null sink forgets it."""
    called: list[Any] = []
    kept = ListSink()
    for sink in (kept, CallbackSink(called.append), NullSink()):
        sink.publish(RESULT)
        sink.publish(BATCH)
    assert kept.results == called == list(kept) == [RESULT, BATCH]
    assert (len(kept), kept[1]) == (2, BATCH)


def test_jsonl_is_strict_and_appended(tmp_path: Path) -> None:
    """Each result, each row of a batch and each commit is one line of strict JSON, appended at once."""

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    path = tmp_path / "results.jsonl"
    with JsonlSink(path) as sink:
        sink.publish(RESULT)
        assert len(path.read_text().splitlines()) == 1
        sink.publish(BATCH)
    with JsonlSink(path) as sink:
        sink.publish(Commit(3, 2, 1, None, 0.5, "ab"))
    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert lines == [
        {
            "job_id": "a",
            "out_id": None,
            "y": [1.5, "NaN"],
            "grads": [["Infinity", "-Infinity"]],
            "hit": "miss",
            "src_ids": [],
            "versions": [],
            "stale": False,
        },
        {
            "job_id": 0,
            "out_id": 7,
            "y": 1.0,
            "grads": [[3.0]],
            "hit": "miss",
            "src_ids": [1],
            "versions": [0],
            "stale": False,
        },
        {
            "job_id": 1,
            "out_id": 8,
            "y": 2.0,
            "grads": [[4.0]],
            "hit": "disk",
            "src_ids": [2],
            "versions": [5],
            "stale": False,
        },
        {"id": 3, "parent": 2, "changed": 1, "stress": None, "residual_norm": 0.5, "digest": "ab"},
    ]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A sink into a folder that does not exist says so at once."""
    with pytest.raises(SinkError, match=r"nowhere.*No such file"):
        JsonlSink(tmp_path / "nowhere" / "x.jsonl")


@pytest.mark.parametrize("sink", [3, [], print], ids=["a number", "a list", "a function"])
def test_what_is_no_sink_is_refused_at_once(sink: Any) -> None:
    """Before anything is computed for it."""
    with wb.open(":memory:") as board:
        system = board.system("s")
        system.add_nodes([0], theta=[1.0])
        with pytest.raises(ParamError, match="sink: expected an object with a method publish"):
            system.process([wb.Job("exp", (0,))], sink)
        assert board.stats()["misses"] == 0


def test_a_path_that_is_none_is_named() -> None:
    """A sink of a file says what it expected."""
    with pytest.raises(ParamError, match=r"^JsonlSink: path: expected the path of a file, got None"):
        JsonlSink(None)  # type: ignore[arg-type]
