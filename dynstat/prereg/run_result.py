"""What a run gives: decisions where a lock made them; by its type none where it was exploratory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DynstatError

if TYPE_CHECKING:
    from ..inference.decision import Decision
    from .deviations import Deviation

STAMPS = ("registered", "registered_after_access")


@dataclass(frozen=True)
class ConfirmatoryResult:
    """A run of what was locked.

    Attributes
    ----------
    out : Path
        Folder of the results.
    study : str
    stamp : {"registered", "registered_after_access"}
    kept : bool
        True where the results of an equal earlier run were kept and nothing was computed.
    outcomes : mapping of str to (outcome, reason code)
        Of every hypothesis, in the order of registration; also of a kept run.
    decisions : mapping of str to Decision
        Empty where the run was kept.
    deviations : tuple of Deviation

    Raises
    ------
    DynstatError
        P309 for anything but decisions of a lock.
    """

    out: Path
    study: str
    stamp: str
    kept: bool
    outcomes: Mapping[str, tuple[str, str]]
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    deviations: tuple[Deviation, ...] = ()

    def __post_init__(self) -> None:
        from ..inference.decision import Decision

        odd = [h for h, d in self.decisions.items() if not isinstance(d, Decision)]
        if self.stamp not in STAMPS or odd:
            raise DynstatError(
                "P309",
                "only what was locked has decisions",
                found=", ".join(odd) or self.stamp,
                expected="decisions of a verified lock",
                mend="an exploratory run is an ExploratoryResult",
            )

    def __str__(self) -> str:
        head = f"{self.study}: {self.stamp.replace('_', ' ')}, {len(self.deviations)} deviations"
        return "\n".join([head, *(f"  {h}: {o} ({code})" for h, (o, code) in self.outcomes.items())])


@dataclass(frozen=True)
class ExploratoryResult:
    """A run that decides nothing: no lock fits its data, or a deviation left nothing of the lock to run.

    Attributes
    ----------
    out : Path
        Folder of the results.
    study : str
    kept : bool
    void : str
        Why the lock could not decide; "" where there was none.
    deviations : tuple of Deviation
    """

    out: Path
    study: str
    kept: bool
    void: str = ""
    deviations: tuple[Deviation, ...] = ()

    @property
    def stamp(self) -> str:
        """Always ``exploratory``."""
        return "exploratory"

    def __str__(self) -> str:
        return f"{self.study}: exploratory, without decisions" + (f" ({self.void})" if self.void else "")


RunResult = ConfirmatoryResult | ExploratoryResult
