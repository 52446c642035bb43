"""The app: a guide in eight steps, in a process that never imports torch."""

import os

# Gradio reads these when it is imported: no telemetry, and a short list of past events, over which every
# queued event runs a pandas summary (8 ms of CPU at its default of 10,000).
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "200")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
