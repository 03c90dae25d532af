"""Submitted jobs: one thread feeds them, another commits; each future gets its own answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from whiteboard.errors import ParamError, StaleImpulseError
from whiteboard.evaluation.queue import Ticket
from whiteboard.systems.jobs import Job, OpResult
from whiteboard.systems.system import System
from whiteboard.types import Stale, shown


@dataclass(frozen=True, slots=True, eq=False)
class Submission:
    """A job for a system, with the versions that its sources had when it was submitted."""

    system: System
    job: Job
    versions: tuple[int, ...]
    refuse_stale: bool

    @classmethod
    def of(cls, job: Job, system: System, stale: Stale) -> Submission:
        """Return a job as it is submitted now."""
        return cls(system, job, system.versions(job.src_ids), stale == "raise")


def check(job: object, stale: object) -> None:
    """Raise unless a job can be submitted so.

    Raises
    ------
    ParamError
    """
    if not isinstance(job, Job):
        msg = f"submit: expected a Job, got {type(job).__name__}"
        raise ParamError(msg)
    if stale not in get_args(Stale):
        msg = f"submit: stale: expected {' or '.join(map(repr, get_args(Stale)))}, got {stale!r}"
        raise ParamError(msg)


def answer(tickets: Sequence[Ticket[Submission, OpResult]]) -> None:
    """Run tickets, those of each system together, and set their futures."""
    by_system: dict[int, list[Ticket[Submission, OpResult]]] = {}
    for ticket in tickets:
        by_system.setdefault(id(ticket.item.system), []).append(ticket)
    for group in by_system.values():
        _answer(group)


def _answer(tickets: Sequence[Ticket[Submission, OpResult]]) -> None:
    """Run the tickets of one system together and set their futures.

    After an error of what they are asked for they run one by one, so that it goes to the job that made it and to no
    other.
    """
    system = tickets[0].item.system
    fresh = list(tickets)
    try:
        with system.nodes.lock:  # no commit between the look at the versions and the answer
            fresh = [ticket for ticket in tickets if not (_answered(ticket) or _refused(ticket))]
            results, parcel = system.answer([ticket.item.job for ticket in fresh], errors="collect")
            for ticket, result in zip(fresh, results, strict=True):
                ticket.attempt = parcel, result
            system.receive(parcel)
    except Exception as error:
        if len(fresh) == 1:
            fresh[0].future.set_exception(error)
            return
        for ticket in fresh:
            _answer([ticket])
        return
    for ticket, result in zip(fresh, results, strict=True):
        _finish(ticket, result)


def _finish(ticket: Ticket[Submission, OpResult], result: OpResult) -> None:
    if result.error is not None:
        ticket.future.set_exception(result.error)
        return
    moved = result.versions != ticket.item.versions
    ticket.future.set_result(replace(result, stale=True) if moved else result)


def _answered(ticket: Ticket[Submission, OpResult]) -> bool:
    """Finish a job whose impulses were taken in before an interrupt came: sent again, they would count twice."""
    if ticket.future.done():
        return True
    if ticket.attempt is None:
        return False
    parcel, result = ticket.attempt
    if not ticket.item.system.has_taken(parcel):
        return False
    _finish(ticket, result)
    return True


def _refused(ticket: Ticket[Submission, OpResult]) -> bool:
    """Put an error into the future of a job that must not be answered for other versions than it was submitted for."""
    item = ticket.item
    if not item.refuse_stale or (now := item.system.versions(item.job.src_ids)) == item.versions:
        return False
    names = ", ".join(
        f"node {node} had version {then}, has {version}"
        for node, then, version in zip(item.job.src_ids, item.versions, now, strict=True)
        if then != version
    )
    ticket.future.set_exception(StaleImpulseError(f"op {item.job.op!r}, job {shown(item.job.job_id)!r}: {names}"))
    return True
