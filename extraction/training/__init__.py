"""Make the embedded panel: corpora, debris of web text, tokenizer, training, losses and cards."""
