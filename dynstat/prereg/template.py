"""Start a study: a plan that passes the check, to be rewritten, and an empty analysis.py."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import DynstatError
from ..files import write_atomic

PLAN = """\
# Rewrite every text; docs/first_plan.md goes through it, docs/preregistration.md explains the keys.
# Check with `dynstat prereg check FOLDER`.
dynstat: "prereg/1"
id: {id}
title: What the study asks, in one line
authors: [{{name: A. Person}}]

registration:
  purpose: confirmatory
  access: {{level: metadata, note: "prompts and models are known; no metric was computed on the panel"}}
  prior_knowledge: What is known already, and from where.

data:
  schema: dynstat-data-1
  prompts: {{file: "data:prompts/panel.csv", split: panel}}
  pilot: {{file: "data:prompts/pilot.csv", split: pilot}}
  units: {{inference: prompt, resampling: prompt}}
  missing: {{policy: drop_prompt, max_fraction: 0.05}}

families:
  main: {{alpha: 0.05}}

gates:
  G1: {{check: min_units, unit: prompt, n: 24}}
  G2: {{check: min_samples, n: 2}}

analyses:
  S1:
    method: variance.shares@1
    outcome: {{metric: ratio_norm@1, layer: last, phase: generated, alignment: causal, scale: log}}
    # What is done where the fit fails; planned, it is no deviation.
    # on_failure: [{{when: singular, do: accept, reason: "a part of zero is a result"}}]
    seed: 1

hypotheses:
  H1:
    claim: Models explain between 10 and 30 % of the variance of ratio_norm on this panel.
    role: primary
    family: main
    estimand: {{analysis: S1, quantity: share.model}}
    rule: in_range
    range: [0.10, 0.30]
    # What you expect; `dynstat prereg diagnose` adds how exact it will be.
    # expected: {{value: 0.2, reason: "the pilot"}}
    sesoi: {{scale: variance_share, reason: "Why this range, and not a wider or a narrower one."}}
    if_supported: What may be said then.
    if_rejected: What may be said then.
    does_not_show: ["What the claim does not show, even if supported."]
"""

ANALYSIS = '''\
"""Methods of this study; nothing but their registration stands here.

Import the registry only, and point to functions in a module beside this file:

    METHODS.add(Method(name="my_study.my_method", version=1, path=f"{__package__}.my_method:my_method", ...))
"""

from dynstat.registry import METHODS, Method  # noqa: F401
'''


def new_study(folder: str | Path) -> Path:
    """Write plan.yaml and analysis.py of a new study into a folder that holds neither.

    Raises
    ------
    DynstatError
        F002 where one of them exists; S404 where the folder's name cannot be an id.
    """
    folder = Path(folder)
    name = folder.resolve().name
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise DynstatError("S404", "a study's folder is named by small letters, digits, _ and -", found=name)
    for file in ("plan.yaml", "analysis.py"):
        if (folder / file).exists():
            raise DynstatError(
                "F002", f"{file} exists already", where=str(folder), mend="choose another folder"
            )
    write_atomic(folder / "plan.yaml", PLAN.format(id=name))
    write_atomic(folder / "analysis.py", ANALYSIS)
    return folder
