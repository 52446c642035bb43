"""Scores: how well images follow their prompts, and how much they resemble the subject."""
