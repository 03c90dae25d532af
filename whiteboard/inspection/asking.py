"""What a board is asked about its store: why a job is a hit or a miss, what is kept of an op, and if it is right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import ArrayLike

from whiteboard import ops
from whiteboard.errors import OmissionWarning, ParamError, UnknownOpError, warn
from whiteboard.evaluation import validation
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.evaluation.sources import Sources, one_job
from whiteboard.identity.keys import DIGEST_BYTES
from whiteboard.inspection import audit
from whiteboard.inspection.explain import Asked, Explanation, asked, by_key, cotangent_of, explain, over_nodes
from whiteboard.inspection.table import Omission, Reading, Table, collected, told
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import Sampled
from whiteboard.storage.base import Store
from whiteboard.systems.jobs import Job
from whiteboard.systems.system import System
from whiteboard.types import OpLike, Params


@dataclass(frozen=True, slots=True)
class Inspection:
    """One open store and the pipeline over it, asked about what is kept."""

    store: Store
    pipeline: Pipeline

    def audit(self, sample: float, seed: int) -> audit.AuditReport:
        """Compute a part of the packages on disk again; see `Board.audit`."""
        pages, values = self.store.sampled(sample, seed)
        return audit.audit(pages, values, ops.get)

    def explain_job(self, job: Job, system: System) -> Explanation:
        """Explain a job over a system's nodes; see `Board.explain`."""
        spec, nodes = ops.get(job.op), system.nodes
        with nodes.lock:
            system.settle()
            sources = over_nodes(nodes, job)
            spec = spec.at(sources.shapes, sources.dtype, spec.bind(job.params))
            found = self._explained(self._asked(spec, job.params, sources))
            if not found.hit or (held := self.store.packages.find([bytes.fromhex(found.key)])).page[0] < 0:
                return found
            y = held.pages[0].arrays["y"][held.slot]
            if (cotangent := cotangent_of(spec, sources, job, y)) is None:
                return found
            return self._explained(asked(spec, job.params, sources, cotangent))

    def explain_arrays(self, op: OpLike, sources: Sequence[ArrayLike], params: Params | None) -> Explanation:
        """Explain the one job of some arrays; see `Board.explain`."""
        arrays, spec = one_job(ops.name_of(op), sources), ops.get(op)
        validation.shape(spec, spec.bind(params), arrays)
        spec = spec.at(arrays.shapes, arrays.dtype, spec.bind(params))
        return self._explained(self._asked(spec, params, arrays))

    def explain_key(self, key: bytes) -> Explanation:
        """Say which package a key names."""
        if len(key) != DIGEST_BYTES:
            msg = f"explain_key: expected {DIGEST_BYTES} bytes, got {len(key)}"
            raise ParamError(msg)
        return by_key(key, self.store.holder(key))

    def table(self, reading: Reading, op: OpLike) -> Table:
        """Return the packages of an op as columns, and warn of what is left out."""
        found = collected(reading, self._pages(reading, op))
        if found.omitted:
            warn(f"the table of op {reading.op!r} is not whole: {told(found.omitted)}", OmissionWarning)
        return found

    def each_row(self, reading: Reading, op: OpLike) -> Iterator[dict[str, Any]]:
        """Yield the packages of an op as rows."""
        return (row for rows in reading.rows(self._pages(reading, op)) for row in rows.each())

    def reading(
        self,
        op: OpLike,
        where: str | None,
        columns: Sequence[str] | None,
        *,
        grads: bool,
        limit: int | None,
        omitted: list[Omission] | None = None,
    ) -> Reading:
        """Return what is to be read of an op, which need not be registered any more."""
        name = op if isinstance(op, str) else ops.get(op).name
        with suppress(UnknownOpError):
            name = ops.get(name).name
        made = Reading(name, where, columns, grads, limit)
        made.omitted = made.omitted if omitted is None else omitted
        return made

    def _pages(self, reading: Reading, op: OpLike) -> Iterator[Sampled]:
        """Yield the pages of an op; one that nobody knows is an error."""
        yield from self.store.pages(reading.op, sources=reading.sources, grads=reading.grads)
        if not reading.pages:
            try:
                ops.get(op)
            except UnknownOpError as error:
                msg = f"{self.store} has no packages of an op {reading.op!r}: {error}"
                raise UnknownOpError(msg) from None

    def _asked(self, spec: OpSpec, params: Params | None, sources: Sources) -> Asked:
        wanted = asked(spec, params, sources)
        if self.pipeline.agreement.distrusts(spec):
            wanted = replace(wanted, opaque="one of its packages was computed again and is another now")
        return wanted

    def _explained(self, wanted: Asked) -> Explanation:
        return explain(wanted, self.store.holder, self.store.summaries)
