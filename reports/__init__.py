"""Results turned into a static Quarto document, and checked."""
