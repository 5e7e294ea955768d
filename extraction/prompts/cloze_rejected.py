"""Places that a reader struck out of the cloze items: a distractor fits as well, or the cut reads oddly."""

from __future__ import annotations

#: ``source: two words before, true word``.
REJECTED: frozenset[str] = frozenset(
    """
austen: the young ladies
austen: that human nature
austen: fortune and consequence
austen: clouds were parting
austen: those she loved
austen: half my time
austen: passed so quickly
kjv: my young men
kjv: saw no man
kjv: opened her eyes
kjv: unto our fathers
kjv: heard their groaning
shakespeare: . i think
shakespeare: what hath chanced
shakespeare: to mine eyes
shakespeare: o the time
shakespeare: , tis day
shakespeare: here she comes
speeches: pursuit of happiness
speeches: quality of life
speeches: our economic system
speeches: peace and freedom
speeches: our young people
speeches: in federal spending
speeches: of common purpose
speeches: , health care
speeches: of nuclear weapons
""".strip().splitlines()
)
