"""One line for a notebook: a model, prompts, and the labelled dataset of what the model did with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from dynstat.dataset.combine import combine
from dynstat.files import canonical_hash, canonical_json
from dynstat.registry import Metric

from .given import Prompts, prompts_from
from .lens.engine import Engine, choose
from .lens.variants import variants_of
from .models.device import arithmetic
from .models.loading import Loaded
from .models.memory import evaluation
from .models.sources import offline
from .opening import WHERE, file_of, open_model
from .panels.measures import METRICS_BY_DEFAULT, bad, read_metrics, read_readouts
from .panels.panel import Intervention, Panel, Sample
from .panels.panelfile import disturbed_samples, plain_samples
from .panels.user_metrics import registered
from .stores.batches import plan_batches
from .stores.plan import Plan, _context
from .stores.provenance import of_model
from .stores.shard import read_batch

MetricLike = str | Mapping[str, Any] | Metric | Callable[..., Any]


@dataclass(frozen=True)
class _Panel(Panel):
    """A panel of one model that no file describes."""

    given: tuple[Mapping[str, Any], ...] = ()

    def prompts(self) -> list[dict[str, Any]]:
        return [dict(p) for p in self.given]

    @property
    def sha256(self) -> str:
        return canonical_hash({"settings": self.settings(), "prompts": list(self.given)})


class _Plan(Plan):
    """The plan of a model that is loaded already."""

    def __init__(self, panel: _Panel, model: Loaded) -> None:
        self.panel = panel
        self.prompts = panel.prompts()
        self.encoders = [model.encoder]
        self.inputs = {
            "prompts": {"sha256": canonical_hash(self.prompts), "split": panel.split, "n": len(self.prompts)},
            "models": [model.source.identity()],
            "settings": panel.settings(),
        }
        context = _context(model.lm.config.get_text_config())
        self.batches = plan_batches(panel, 0, model.encoder, context, self.prompts)


def extract(
    model: Any,
    prompts: Prompts,
    metrics: Sequence[MetricLike] | MetricLike = METRICS_BY_DEFAULT,
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    max_new_tokens: int = 0,
    seeds: Sequence[int] = (),
    temperatures: Sequence[float] = (),
    greedy: bool = False,
    interventions: Sequence[Intervention | Mapping[str, Any]] = (),
    readouts: Sequence[str | Mapping[str, Any]] = ("logit_lens",),
    start_token: str = "bos",
    end_of_text: str = "ignore",
    truncate: bool = False,
    nonfinite: str = "error",
    padding: str = "none",
    batch_tokens: int = 8192,
    device: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    offline: bool = False,
    name: str | None = None,
    progress: bool | Callable[[int, int, str], None] = False,
) -> xr.Dataset:
    """Read prompts with a model, let it continue them at will, and return what was measured.

    The same code as ``dynstat extract`` for a panel of one model, without a store: nothing is written to
    disk. Batches are read one after another, so memory grows with the result and not with the states.

    Parameters
    ----------
    model : PreTrainedModel, str or path
        A causal model of transformers that is in memory, on any device and in any number format; it is left
        as it was: training mode, hooks, gradients, number format. Or a folder, a GGUF file, a name in the
        data of dynstat (``"data:models/gpt2-curated-s0"``), or a hub repository with `revision`.
    prompts : list of str, mapping, DataFrame, str or path
        Texts; texts by identifier; rows with ``text`` and, at will, ``id``, ``category`` and other columns;
        one text; or a file as in docs/prompts.md (a path, or a str that ends in ``.csv``).
    metrics : sequence, optional
        Names (``"entropy"``, ``"entropy@1"``); mappings with options (``{"metric": "concentration", "k": 5,
        "as": "concentration_5"}``); functions whose parameters name their inputs (``def spread(states)``);
        or `dynstat.registry.Metric` entries. The ten of docs/extraction.md by default.
    tokenizer : PreTrainedTokenizerBase, str or path, optional
        Needed with a model in memory; else the folder of a tokenizer, where the model's own has none.
    revision : str, optional
        Commit or tag of a hub repository: always to be given with one.
    max_new_tokens : int, optional
        Tokens written after each prompt; 0 reads the prompts and writes nothing.
    seeds : sequence of int, optional
        Seeds of the continuations, each at each temperature.
    temperatures : sequence of float, optional
        1.0 where seeds are given alone.
    greedy : bool, optional
        Let the most probable tokens be written, too; so it is where no seed is given.
    interventions : sequence of Intervention or mapping, optional
        ``{"kind": ..., "target_layer": ..., "dose": ..., "phase": ...}``; every sample is repeated under
        each, the undisturbed ones stay.
    readouts : sequence of str or mapping, optional
        As in a panel: ``"no_norm"``, ``{"readout": "t_matched", "entropy": 3.0}``, ...
    start_token : str, optional
        "bos" (none, with a warning, where the tokenizer has no such token), "none", or a token's text.
    end_of_text : {"ignore", "stop", "suppress"}, optional
        Whether end of text ends a run.
    truncate : bool, optional
        Cut what is longer than the model's context.
    nonfinite : {"error", "flag"}, optional
        What happens where states or logits are not finite.
    padding : {"none", "right"}, optional
        "right" reads prompts of different lengths together, where nothing is written.
    batch_tokens : int, optional
        Most tokens read at once.
    device : {"cpu", "cuda"}, optional
        Where a model is loaded, "cpu" by default. A model in memory stays where it is.
    dtype : {"float32", "bfloat16", "float16"}, optional
        Number format a model is loaded in, "float32" by default. A model in memory keeps its own.
    threads : int, optional
        Threads of torch meanwhile; as they are set now by default.
    offline : bool, optional
        Ask nothing of the network.
    name : str, optional
        Label on dim ``model``; by default the name of folder, file, repository or architecture.
    progress : bool or callable, optional
        True shows a bar on stderr; a callable gets runs done, runs in all, and what is at work.

    Returns
    -------
    xarray.Dataset
        Dims (model, prompt, sample, token, layer), docs/schema.md; it passes ``dynstat.verify``. Datasets of
        several models are joined by ``dynstat.combine``, saved by ``dynstat.save``.

    Raises
    ------
    DynstatError
        X201 to X210, X215, X216, X218 to X222 as for a panel; Y002 and Y003 (arguments), X205 (empty prompt),
        X211 (prompts of split ``confirmation``, which need a lock).

    Warns
    -----
    DynstatWarning
        Where the tokenizer has no start token.

    Examples
    --------
    >>> from dynstat.extraction import extract
    >>> ds = extract("data:models/gpt2-curated-s0", ["The king said", "A ship came home"], "entropy",
    ...              tokenizer="data:models/tokenizer")
    >>> dict(ds.entropy.sizes)["layer"], ds.entropy.attrs["units"]
    (9, 'nat')
    """
    samples = _samples(max_new_tokens, seeds, temperatures, greedy, interventions)
    rows = prompts_from(prompts)
    choices: dict[str, tuple[Any, tuple[str, ...]]] = {
        "end_of_text": (end_of_text, ("ignore", "stop", "suppress")),
        "nonfinite": (nonfinite, ("error", "flag")),
        "padding": (padding, ("none", "right") if max_new_tokens == 0 else ("none",)),
    }
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            raise bad(key, value, " | ".join(allowed), WHERE)
    for key, number in (("batch_tokens", batch_tokens), ("threads", 1 if threads is None else threads)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise bad(key, number, "a whole number, at least 1", WHERE)
    if not isinstance(metrics, Iterable) and not isinstance(metrics, Metric) and not callable(metrics):
        raise bad("metrics", metrics, "names, mappings, functions or Metric entries", WHERE)
    if not isinstance(name, (str, type(None))):
        raise bad("name", name, "text", WHERE)
    given = [metrics] if isinstance(metrics, (str, Mapping, Metric)) or callable(metrics) else list(metrics)
    own = [m for m in given if isinstance(m, Metric) or callable(m)]
    with registered(own) as names, _no_network() if offline else nullcontext():
        asked = iter(names)
        specs = read_metrics([next(asked) if m in own else m for m in given], WHERE)
        loaded = open_model(model, tokenizer, revision, start_token, device, dtype, name)
        chosen, options = read_readouts(list(readouts), (loaded.id,), file_of, WHERE)
        panel = _Panel(
            id=loaded.id,
            title=f"{loaded.id} on {len(rows)} prompt{'s' * (len(rows) > 1)}",
            license="",
            file=Path(WHERE),
            models=(loaded.source.spec,),
            prompt_file=Path(WHERE),
            split=rows[0]["split"],
            samples=samples,
            budget=max_new_tokens,
            mode="generated" if max_new_tokens else "forced",
            start_token=start_token if loaded.encoder.start else "none",
            end_of_text=end_of_text,
            truncate=truncate,
            nonfinite=nonfinite,
            readouts=chosen,
            metrics=specs,
            threads=torch.get_num_threads() if threads is None else threads,
            batch_tokens=batch_tokens,
            device=loaded.device.type,
            dtype=loaded.source.dtype,
            padding=padding,
            readout_options=options,
            given=tuple(rows),
        )
        with _shown(progress) as tell:
            return _measured(_Plan(panel, loaded), loaded, tell)


def _measured(plan: _Plan, model: Loaded, tell: Callable[[int, int, str], None]) -> xr.Dataset:
    panel, parts = plan.panel, []
    total, done = sum(b.rows for b in plan.batches), 0
    with evaluation(model.lm), arithmetic(panel):
        card = model.card(plan.inputs["models"][0])
        variants, engine = variants_of(panel, model), _engine(panel.threads, panel.device)
        for batch in plan.batches:
            tell(done, total, model.id)
            parts.append(read_batch(plan, model, card, batch, variants, engine))
            done += batch.rows
        known = of_model(panel, model, plan.inputs["models"][0], engine)
    tell(total, total, "done")
    ds = combine(parts)
    ds.attrs["provenance"] = canonical_json(known).decode()
    return ds


@lru_cache
def _engine(threads: int, device: str) -> Engine:
    """Choose once a session, so that what is computed twice in it is equal bit for bit."""
    return choose(threads, device)


def _samples(
    budget: int,
    seeds: Sequence[int],
    temperatures: Sequence[float],
    greedy: bool,
    interventions: Sequence[Intervention | Mapping[str, Any]],
) -> tuple[Sample, ...]:
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
        raise bad("max_new_tokens", budget, "a whole number, 0 where nothing is written", WHERE)
    for key, values in (("seeds", seeds), ("temperatures", temperatures)):
        if not isinstance(values, Iterable) or isinstance(values, (str, Mapping)):
            raise bad(key, values, "a list of numbers", WHERE)
    seeds, temperatures = list(seeds), list(temperatures)
    if budget == 0:
        for key, value in (("seeds", seeds), ("temperatures", temperatures), ("greedy", greedy)):
            if value:
                raise bad(key, value, "nothing where max_new_tokens is 0: nothing is written", WHERE)
        plain = [Sample("forced", -1, 0.0, 0, "forced")]
    else:
        heat = temperatures or [1.0] * bool(seeds)
        plain = plain_samples(seeds, heat, bool(greedy) or not (seeds or temperatures), budget, WHERE)
    if not interventions:
        return tuple(plain)
    changes = [i.as_dict() if isinstance(i, Intervention) else i for i in interventions]
    return tuple(plain + disturbed_samples(plain, changes, WHERE))


@contextmanager
def _no_network() -> Iterator[None]:
    with offline():
        yield


@contextmanager
def _shown(progress: bool | Callable[[int, int, str], None]) -> Iterator[Callable[[int, int, str], None]]:
    if callable(progress):
        yield progress
    elif progress:
        from dynstat.cli.output import progress_bar

        with progress_bar("extract") as bar:
            yield bar
    else:
        yield lambda done, total, what: None
