"""The registries of metrics and methods: names, versions, options and dotted paths, resolved on first use.

Nothing here imports numpy, so that a plan can be checked on a machine that only reads it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Generic, Literal, TypeVar

from .errors import DynstatError

Origin = Literal["published", "dynstat", "user"]
Level = Literal["run", "token", "layer"]


@dataclass(frozen=True)
class Option:
    """One option of a metric or method: its default, and what it accepts.

    `allowed` lists the choices; None accepts any value of the default's type.
    """

    default: Any
    allowed: tuple[Any, ...] | None = None
    doc: str = ""

    def check(self, value: Any, name: str, owner: str) -> Any:
        """Return `value` if the option accepts it, else raise Y003."""
        if self.allowed is not None:
            if value not in self.allowed:
                raise DynstatError(
                    "Y003",
                    f"option {name!r} of {owner} does not accept {value!r}",
                    where=owner,
                    found=value,
                    expected=" | ".join(map(str, self.allowed)),
                )
        elif self.default is not None and not _same_type(value, self.default):
            raise DynstatError(
                "Y003",
                f"option {name!r} of {owner} has the wrong type",
                where=owner,
                found=f"{value!r} ({type(value).__name__})",
                expected=type(self.default).__name__,
            )
        return value


def _same_type(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    return isinstance(value, type(default))


@dataclass(frozen=True)
class Entry:
    """What metrics and methods share.

    Attributes
    ----------
    name, version : str, int
        Together the id ``name@version``.
    path : str
        ``package.module:function`` of the definition; imported on first use.
    options : mapping of str to Option
        What a plan may set.
    origin : {"published", "dynstat", "user"}
        "dynstat" where no published formula was found and this project chose one; "user" where it is not
        part of this project.
    reference : str
        The source, as a citation a reader can follow.
    """

    name: str
    version: int
    path: str
    summary: str
    origin: Origin
    reference: str
    options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    def resolve(self) -> Callable[..., Any]:
        """Import and return the function behind the entry."""
        return _import(self.path)

    def fill(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options: those given, checked, and the defaults of the others."""
        for key in given:
            if key not in self.options:
                near = get_close_matches(key, self.options, n=1)
                raise DynstatError(
                    "Y002",
                    f"{self.id} has no option {key!r}",
                    where=self.id,
                    expected=", ".join(self.options) or "no options",
                    mend=f"did you mean {near[0]!r}?" if near else "remove it",
                )
        return {
            key: option.check(given[key], key, self.id) if key in given else option.default
            for key, option in self.options.items()
        }


@dataclass(frozen=True)
class Metric(Entry):
    """A definition with its units and valid range.

    Attributes
    ----------
    long_name, units : str
        As written to NetCDF; units "1" where dimensionless, "rad", "nat", "token" otherwise.
    valid_min, valid_max : float
        The range that `verify` enforces; infinities where unbounded.
    level : {"run", "token", "layer"}
        The finest dims of the result.
    inputs : tuple of str
        What the function takes, in this order. While models are read: ``states`` (h), ``steps``
        (h_t - h_{t-1}), ``logits`` (of the lens), ``next_logits`` (of the layer above), ``final_logits`` (of
        the last layer), ``next_token`` (the id that follows). Later: ``tokens``, or the names of other
        metrics. At level "token" of the user's own metrics ``states`` and ``steps`` are those of all layers.
    undefined : tuple of str
        Where the definition has no value at a valid point: ``first_tokens:K``, ``last_layer``, ``frozen``
        (a step below its eps), ``missing_input``. Any other NaN is an error.
    dtype : str
        "float32", or "int32" / "int8" for codes.
    flags : tuple of str
        Meanings of integer codes 0, 1, ... for categorical results.
    formula : str
        Plain text or LaTeX.
    """

    long_name: str = ""
    units: str = "1"
    valid_min: float = float("-inf")
    valid_max: float = float("inf")
    level: Level = "layer"
    inputs: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    dtype: str = "float32"
    flags: tuple[str, ...] = ()
    formula: str = ""


@dataclass(frozen=True)
class Method(Entry):
    """An analysis that a plan can name; its function returns ``dict[str, Estimate]``.

    Attributes
    ----------
    quantities : tuple of str
        The estimands that a hypothesis may point at.
    metrics : tuple of str
        Names of dataset variables it reads when the plan names no metric.
    required : tuple of tuple of str
        What a plan must give, "outcome" or names of options: of every group just one, and no empty value.
    takes_outcome : bool
        Whether a plan may name an outcome at all.
    null_draws : str
        The option that says how many draws its null is made of: p cannot fall below 1/(draws + 1). Empty
        where the null is exact, or there is none.
    simulate : str
        ``package.module:function`` that simulates the registered design from a pilot and returns a standard
        error a quantity, for ``prereg diagnose``; empty where none is offered.
    """

    quantities: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    required: tuple[tuple[str, ...], ...] = ()
    takes_outcome: bool = True
    null_draws: str = ""
    simulate: str = ""

    def simulator(self) -> Callable[..., Any] | None:
        """Import and return the function behind `simulate`, None where there is none."""
        return _import(self.simulate) if self.simulate else None

    def owed(self, options: Mapping[str, Any], outcome: object) -> list[str]:
        """Return, in words, what a plan leaves out that must be given, or gives too much of."""
        given = {k for k, v in options.items() if v not in (None, "", [], (), {})}
        if outcome is not None:
            given.add("outcome")
        problems = []
        for group in self.required:
            found = [name for name in group if name in given]
            if len(found) != 1:
                words = " or ".join(
                    f"{name!r}" if name == "outcome" else f"the option {name!r}" for name in group
                )
                few, many = f"{self.id} needs {words}", f"{self.id} takes {words}, not both"
                problems.append(many if found else few)
        if "outcome" in given and not self.takes_outcome:
            problems.append(f"{self.id} takes no outcome: what it reads is named by options")
        return problems


E_ = TypeVar("E_", bound=Entry)


class Registry(Generic[E_]):
    """Entries by ``name@version``; a bare name means the newest version."""

    def __init__(self, kind: str, unknown: str, sources: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self._unknown = unknown
        self._sources = list(sources)
        self._entries: dict[str, E_] = {}
        self._kernels: dict[str, str] = {}

    def add(self, entry: E_) -> E_:
        """Register an entry; the same id twice is an error unless it is the same entry."""
        old = self._entries.get(entry.id)
        if old is not None and old != entry:
            raise DynstatError(
                "P307",
                f"{self.kind} {entry.id} is registered twice",
                where=entry.path,
                found=old.path,
                mend="raise the version when a definition changes",
            )
        self._entries[entry.id] = entry
        return entry

    def discard(self, *entries: E_) -> None:
        """Take entries out again; those that are not there are passed over."""
        for entry in entries:
            if self._entries.get(entry.id) == entry:
                del self._entries[entry.id]

    def get(self, name: str) -> E_:
        """Return the entry ``name`` or ``name@version``."""
        self._load()
        if name in self._entries:
            return self._entries[name]
        versions = [e for e in self._entries.values() if e.name == name]
        if versions:
            return max(versions, key=lambda e: e.version)
        near = get_close_matches(name, [e.name for e in self] + list(self._entries), n=1)
        raise DynstatError(
            self._unknown,
            f"no {self.kind} is called {name!r}",
            where=self.kind,
            found=name,
            expected=", ".join(sorted({e.name for e in self})),
            mend=f"did you mean {near[0]!r}?" if near else f"register the {self.kind} or correct the name",
        )

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._entries or any(e.name == name for e in self._entries.values())

    def __iter__(self) -> Iterator[E_]:
        self._load()
        return iter(list(self._entries.values()))

    def attach_kernel(self, name: str, path: str) -> None:
        """Name a faster equivalent of an entry's function (torch kernels live in extraction)."""
        self._kernels[self.get(name).id] = path

    def kernel(self, name: str) -> Callable[..., Any] | None:
        """Return the attached kernel of an entry, or None."""
        path = self._kernels.get(self.get(name).id)
        return _import(path) if path else None

    def kernels(self) -> dict[str, str]:
        """Return the attached kernels by entry id."""
        return dict(self._kernels)

    def _load(self) -> None:
        # Sources register their entries on import; popping first keeps a cycle from looping.
        while self._sources:
            importlib.import_module(self._sources.pop(0))


def _import(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


METRICS: Registry[Metric] = Registry("metric", "Y003", ("dynstat.metrics.entries",))
METHODS: Registry[Method] = Registry(
    "method",
    "P307",
    (
        "dynstat.inference.methods",
        "dynstat.inference.methods_structure",
        "dynstat.inference.methods_markov",
    ),
)


def parse_metric(spec: Mapping[str, Any]) -> tuple[Metric, dict[str, Any]]:
    """Return the entry and filled options of ``{metric: name@version, option: value, ...}``."""
    given = dict(spec)
    entry = METRICS.get(str(given.pop("metric")))
    return entry, entry.fill(given)


def parse_measured(spec: Mapping[str, Any]) -> tuple[Metric, dict[str, Any]]:
    """Return the same of a metric of a panel, where ``as`` may name the variable: :func:`variable_name`."""
    return parse_metric({k: v for k, v in spec.items() if k != "as"})


def variable_name(spec: Mapping[str, Any]) -> str:
    """Return the name of the variable that a panel's metric becomes: its ``as``, or the metric's own."""
    return str(spec.get("as") or str(spec["metric"]).partition("@")[0])
