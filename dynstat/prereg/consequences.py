"""What deviations do to decisions: a claim that one touches cannot be supported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..inference.decision import Decision, downgrade

if TYPE_CHECKING:
    from .deviations import Deviation
    from .lock import Lock


def with_consequences(
    lock: Lock, decisions: Mapping[str, Decision], deviations: Sequence[Deviation]
) -> dict[str, Decision]:
    """Return the decisions, where a deviation that forbids support has turned it into inconclusive.

    Where tests go on from one hypothesis to the next, one that cannot be supported opens no way: those that
    were reached over it are downgraded with it.
    """
    out = dict(decisions)
    for number, d in enumerate(deviations, start=1):
        why = f"a run without deviation D{number}, registered anew on data that it has not seen"
        for name in d.affects if d.forbids_support else ():
            if name not in out or out[name].outcome != "supported":
                continue
            for other in (name, *reached_over(lock.plan, name)):
                out[other] = downgrade(lock, out[other], why)
    return out


def reached_over(plan: Mapping[str, Any], hypothesis: str) -> tuple[str, ...]:
    """Return the hypotheses that are tested only because this one was supported, in registration order."""
    hypotheses, families = plan["hypotheses"], plan["families"]
    own = hypotheses[hypothesis]["family"]
    order = list(families[own].get("order", ()))
    later = set(order[order.index(hypothesis) + 1 :]) if hypothesis in order else set()
    gates = {own}
    while True:
        behind = {f for f, spec in families.items() if spec.get("after") in gates} - gates
        if not behind:
            break
        gates |= behind
    return tuple(
        h for h, c in hypotheses.items() if h in later or (c["family"] in gates and c["family"] != own)
    )
