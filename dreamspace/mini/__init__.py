"""The embedded model: its world, its recipe, its weights and the sample subjects."""

from pathlib import Path

MODEL_FOLDER = Path(__file__).parent / "model"
"""The weights, laid out as a stock `StableDiffusionPipeline`, with `tiny_vae` and `clip` beside."""
