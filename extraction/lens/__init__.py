"""From states to labelled numbers: the streaming lens, its read-outs, kernels and definitions."""
