"""What a worker does: plain functions, and the PTransforms that wire them (pipeline, shards)."""
