"""Models run over prompt panels: hidden-state geometry and next-token distributions as labelled data."""
