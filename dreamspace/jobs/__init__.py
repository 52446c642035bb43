"""Jobs: a folder goes in (`job.json`), events and files come out. No torch, no gradio."""
