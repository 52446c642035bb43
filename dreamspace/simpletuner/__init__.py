"""SimpleTuner's pair of files: read as the same training, and written for it."""
