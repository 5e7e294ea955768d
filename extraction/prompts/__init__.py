"""Make and check the prompt files of ``data/prompts``: token lengths, cloze items, manifest."""
