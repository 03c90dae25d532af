"""Where a command computes: in this process, in some of its own (``--workers``), or on a Dask cluster (``--dask``)."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

import click

from whiteboard.errors import ExecutorError, MissingExtraError

_SECONDS = 10


@contextmanager
def computing(workers: int | None, dask: str | None) -> Iterator[Executor | int | None]:
    """What `wb.open` is given as ``executor`` while the block runs.

    Parameters
    ----------
    workers : int, optional
        Of ``--workers``.
    dask : str, optional
        Of ``--dask``: the address of a scheduler.

    Raises
    ------
    click.UsageError
        Both are given, or what is given is no address.
    MissingExtraError
        There is no distributed.
    ExecutorError
        No scheduler answers there, or it has no workers.
    """
    if dask is None:
        yield workers
        return
    if workers is not None:
        message = "give --workers or --dask, not both: a cluster has workers of its own"
        raise click.UsageError(message)
    if not re.fullmatch(r"([a-z]+://)?[^\s/]+:\d+", dask):
        message = f"--dask: expected a scheduler's address, as tcp://HOST:8786, got {dask!r}"
        raise click.UsageError(message)
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        message = "--dask needs distributed: pip install 'distributed>=2024.8'"
        raise MissingExtraError(message) from error
    for name in ("distributed", "distributed.client"):  # what happens there is told by those who ask
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(dask, timeout=_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        message = f"no Dask scheduler answers at {dask!r}: {' '.join(str(error).split())}"
        raise ExecutorError(message) from error
    with client:
        if not client.nthreads():
            message = f"the Dask scheduler at {dask!r} has no workers: start one with `dask worker {dask}`"
            raise ExecutorError(message)
        yield client.get_executor(pure=False, retries=2)
