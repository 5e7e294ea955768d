"""Claims A1 to A3 of the conditional-signatures audit."""
