"""From photos to training rows: reading, geometry, cache, and which row shows what."""
