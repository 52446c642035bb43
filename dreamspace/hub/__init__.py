"""Publishing to the Hugging Face Hub: the model card and the push. Importing it loads no torch."""
