"""The commands of `python -m dreamspace`: their options, and what they do."""
