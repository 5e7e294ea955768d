"""The one exception class, its table of codes, and the exit codes of the command line."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple


class ExitCode(IntEnum):
    """Exit codes of every command; a rejected claim is a result and exits OK."""

    OK = 0
    CHECKS_FAILED = 1
    USAGE = 2
    INTEGRITY = 3
    NOT_LOCKED = 4
    UNREADABLE = 5
    INTERNAL = 70


class Entry(NamedTuple):
    """One row of the table: a title, the exit code, and what `dynstat explain` prints."""

    title: str
    exit: ExitCode
    explanation: str


_C, _U, _I, _N, _R = (
    ExitCode.CHECKS_FAILED,
    ExitCode.USAGE,
    ExitCode.INTEGRITY,
    ExitCode.NOT_LOCKED,
    ExitCode.UNREADABLE,
)

CODES: dict[str, Entry] = {
    # files and configuration
    "F001": Entry(
        "file not found", _R, "The path does not exist. Check the spelling and the working folder."
    ),
    "F002": Entry(
        "cannot write",
        _R,
        "The target is read-only or the disk is full. Nothing was changed: files "
        "are written under a temporary name and renamed when whole.",
    ),
    "F003": Entry("cannot read", _R, "The file exists and cannot be read in the expected format."),
    "Y001": Entry(
        "YAML is not valid",
        _U,
        "The strict loader accepts YAML 1.2 core values without anchors, tags "
        "or duplicate keys, in NFC text.",
    ),
    "Y002": Entry(
        "unknown or missing key", _U, "Every key is checked, so that a misspelt one is never ignored."
    ),
    "Y003": Entry(
        "value not allowed", _U, "The value has the wrong type or lies outside what the key accepts."
    ),
    # datasets
    "D101": Entry(
        "not a dynstat dataset", _R, "The file could be opened and lacks the attributes of the schema."
    ),
    "D102": Entry(
        "dataset truncated or damaged", _R, "The file ends early or a checksum fails. Copy it again."
    ),
    "D103": Entry("variable missing", _C, "An analysis needs a variable that the dataset does not hold."),
    "D104": Entry(
        "dataset violates the schema", _C, "All violations are listed; docs/schema.md gives the rules."
    ),
    "D105": Entry(
        "datasets cannot be combined", _C, "Shards disagree on a definition, a coordinate or a value."
    ),
    "D106": Entry(
        "value cannot be stored", _U, "NetCDF would change it silently (NUL bytes, None, categories)."
    ),
    "D107": Entry("export needs pyarrow", _U, "Parquet needs `pip install pyarrow`; CSV needs nothing."),
    # extraction
    "X201": Entry(
        "model not found", _R, "Neither a folder, a GGUF file nor a cached or reachable hub repository."
    ),
    "X202": Entry("revision not found", _R, "The hub repository exists without that revision. Pin a commit."),
    "X203": Entry(
        "tokenizer does not fit the model", _C, "Ids of the tokenizer must lie inside the embedding."
    ),
    "X204": Entry(
        "prompt longer than the context", _C, "Shorten it, lower the budget, or say `truncate: true`."
    ),
    "X205": Entry("empty prompt", _C, "A prompt must hold at least one token after encoding."),
    "X206": Entry(
        "logits not finite",
        _C,
        "The model computed NaN or infinity. `nonfinite: flag` stores and flags such points.",
    ),
    "X207": Entry(
        "read-out differs from the model",
        _C,
        "The lens at the last layer must equal the model's own "
        "logits. This architecture is not read correctly, so nothing is written.",
    ),
    "X208": Entry(
        "weights missing from the checkpoint", _C, "The loader would fill them with random numbers."
    ),
    "X209": Entry("extraction needs torch", _U, "Install with `pip install dynstat[extraction]`."),
    "X210": Entry("unsafe weights", _C, "Only safetensors and GGUF are loaded; pickled files can run code."),
    "X211": Entry(
        "confirmation prompts need a lock",
        _N,
        "Prompts of split `confirmation` are read only with "
        "`--lock`, so that plans are fixed before the data exist.",
    ),
    "X212": Entry("store belongs to another panel", _I, "The folder holds shards of a different panel."),
    "X213": Entry(
        "corpus differs from the registered one", _I, "The SHA-256 of a training text does not match."
    ),
    "X214": Entry(
        "weights differ from the registered ones",
        _I,
        "The panel names the SHA-256 of a model's weights, and the file has another; or a file changed "
        "between the hash and the loading.",
    ),
    "X215": Entry(
        "device not available",
        _U,
        "The panel says `device: cuda`, and torch sees no CUDA device here.",
    ),
    "X216": Entry(
        "device out of memory",
        _C,
        "A batch does not fit. Shards written before stay; `batch_tokens` bounds what is held at once.",
    ),
    "X217": Entry(
        "engine not to be had here",
        _U,
        "A store is computed with one matmul kernel, number of threads and block size throughout, so that "
        "its values are equal bit for bit whoever writes them. This machine or version cannot compute so.",
    ),
    "X218": Entry(
        "model not open to you",
        _R,
        "The hub holds the repository and asks for more than its name: accept the terms on its page, and "
        "log in with `hf auth login`. The revision is then fetched like any other.",
    ),
    "X219": Entry(
        "offline, and not in the cache",
        _R,
        "With `--offline` or HF_HUB_OFFLINE nothing is asked of the network; what the cache lacks is named.",
    ),
    "X220": Entry(
        "translators of another model",
        _I,
        "Translators of the tuned lens belong to the weights they were trained with: their file names the "
        "SHA-256, the read-out, the width and the number of layers, and one of them is another.",
    ),
    "X221": Entry(
        "intervention does not fit the model",
        _U,
        "A kind, phase or dose that does not exist, or a layer that a model of the panel lacks. Layer 0 is "
        "the input of the first block, the last index the output of the last block.",
    ),
    "X222": Entry(
        "metric of the user's own fails",
        _C,
        "The file that `register:` names cannot be imported, an entry lacks something, or the function "
        "raises, returns another shape, or has no finite value where its inputs have. docs/extraction.md "
        "shows a file.",
    ),
    "X223": Entry(
        "scheduler missing or lost",
        _R,
        "Dask is not installed, its scheduler does not answer or went away, or its workers do not see the "
        "files that the command sees. What was finished is kept; docs/scaling.md says what workers need.",
    ),
    "X224": Entry(
        "no temperature gives the entropy",
        _C,
        "The read-out `t_matched` looks for the temperature at which a model's mean entropy on held-out "
        "text is `entropy:` nat. It must lie above 0 and below the log of the vocabulary.",
    ),
    "X225": Entry(
        "architecture not supported",
        _C,
        "States are read from a causal language model with one list of layers, each of which turns one state "
        "a token into the next. docs/architectures.md names what is read, and why the rest is not.",
    ),
    # preregistration
    "P301": Entry(
        "plan is not valid", _U, "All problems are listed; docs/preregistration.md gives the keys."
    ),
    "P302": Entry("lock was edited", _I, "The lock's hash does not match its content. Restore it from git."),
    "P303": Entry(
        "data differ from the data of this lock",
        _I,
        "A lock is bound to one content hash at its first run; other data are refused under it.",
    ),
    "P304": Entry("no lock fits the data", _N, "The study runs as exploratory: estimates, no decisions."),
    "P305": Entry(
        "lock exists already", _I, "A lock is never overwritten. Give the new one another panel name."
    ),
    "P306": Entry(
        "ledger was edited",
        _I,
        "The chain of hashes of ledger.jsonl is broken, or its end or an entry is missing.",
    ),
    "P307": Entry("method not registered", _U, "A plan names methods as name@version from one registry."),
    "P308": Entry(
        "method changed since the lock", _I, "The code of the study or the version of a method differs."
    ),
    "P309": Entry("not exploratory", _U, "Only a locked plan can make a decision."),
    "P310": Entry(
        "amendments do not fit",
        _I,
        "A lock that is amended is missing, or does not differ from its amendment as that says.",
    ),
    "P311": Entry(
        "proof does not fit the lock",
        _I,
        "A proof beside a lock was edited or is missing, or a time stamp is of another file.",
    ),
    # statistics
    "S401": Entry("formula is not valid", _U, "The offending token is marked."),
    "S402": Entry("model cannot be fitted", _C, "The design is confounded or has too few levels."),
    "S403": Entry("too few units", _C, "The estimate needs more independent units than the data hold."),
    "S404": Entry("argument outside its range", _U, "See the docstring for the allowed values."),
    "S405": Entry(
        "no clusters can be formed",
        _C,
        "Fewer items than clusters, features that do not vary, or values that are missing.",
    ),
    "S406": Entry(
        "no chain can be estimated",
        _C,
        "One state only, no transition, or a state that is never left where its row is needed.",
    ),
    "S407": Entry(
        "labels do not match", _U, "Items, states or groups are named that the data do not hold, or differ."
    ),
    # reports
    "R501": Entry("report check failed", _C, "All problems are listed."),
    "R502": Entry(
        "results file not valid", _R, "results.json is the report's only source and must be whole."
    ),
    "R503": Entry("quarto not found", _R, "Install Quarto from quarto.org; the .qmd is complete without it."),
}


class DynstatError(Exception):
    """Say what is wrong, where, what was found and expected, and how to mend it.

    Parameters
    ----------
    code : str
        A key of :data:`CODES`.
    what : str
        One sentence on the fault.
    where : str
        File and line, variable, or label.
    found, expected, mend : str
        The value met, the value wanted, the way out.
    problems : iterable of str
        Further lines, where several faults are reported in one pass.
    """

    def __init__(
        self,
        code: str,
        what: str,
        *,
        where: str = "",
        found: object = "",
        expected: object = "",
        mend: str = "",
        problems: Iterable[str] = (),
    ) -> None:
        if code not in CODES:
            raise KeyError(f"error code {code!r} is not in dynstat.errors.CODES")
        self.code = code
        self.what = what
        self.where = str(where)
        self.found = str(found)
        self.expected = str(expected)
        self.mend = mend
        self.problems = tuple(problems)
        super().__init__(self.__str__())

    @property
    def exit(self) -> ExitCode:
        """The exit code that the command line returns for this error."""
        return CODES[self.code].exit

    def as_dict(self) -> dict[str, object]:
        """Return the fields, for ``--json``."""
        keys = ("code", "what", "where", "found", "expected", "mend")
        return {k: getattr(self, k) for k in keys} | {"problems": list(self.problems), "exit": int(self.exit)}

    def __reduce__(self) -> tuple[Any, ...]:
        # Whole errors come back from other processes.
        fields = {k: getattr(self, k) for k in ("where", "found", "expected", "mend", "problems")}
        return partial(type(self), **fields), (self.code, self.what)

    def __str__(self) -> str:
        lines = [f"{self.code} {self.what}"]
        for key in ("where", "found", "expected", "mend"):
            if value := getattr(self, key):
                lines.append(f"  {key + ':':<10} {value}")
        lines += [f"  - {p}" for p in self.problems]
        return "\n".join(lines)


class DynstatWarning(UserWarning):
    """A result that stands but must be read with care: singular fit, boundary, small n."""
