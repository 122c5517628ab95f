"""What a conversion and its feed are measured against: 100 GB of scenes an hour on an inexpensive
cloud machine, and loading that no training step waits for."""

CONVERT_MB_PER_S = 27.8  # of source: 100 GB an hour
LOAD_SECONDS = 2.0  # 5 shuffled batches of 1024
MEMORY_GIB = 2.0  # peak, of conversion and of loading
