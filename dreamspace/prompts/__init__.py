"""Choosing the words: what tokenizers make of a prompt, rare tokens, look-alikes."""
