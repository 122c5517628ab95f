"""CSV: a line a patch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .alternative import BUFFER, CHECKPOINT, Alternative

_ROWS = 256  # of a block that is written at once


class Csv(Alternative):
    name, title = "csv", "CSV, a line a patch"
    modules = ("tensorflow", "pyarrow")
    install = "pip install 'scenefeed[convert,tensorflow]'"
    resume = CHECKPOINT
    room = 5.0

    def why_not(self) -> str:
        if self.sample.dtype not in _PARSED:
            return f"TensorFlow reads no {self.sample.dtype} from text"
        return super().why_not()

    def write(self, images: np.ndarray, classes: np.ndarray | None, folder: Path) -> None:
        import pyarrow
        import pyarrow.csv

        options = pyarrow.csv.WriteOptions(include_header=False)
        with open(folder / "patches.csv", "wb") as file:
            for begin in range(0, len(images), _ROWS):
                block = images[begin : begin + _ROWS]
                columns = np.ascontiguousarray(block.reshape(len(block), -1).T)
                names = [str(i) for i in range(len(columns))]
                rows = pyarrow.RecordBatch.from_arrays([pyarrow.array(c) for c in columns], names)
                pyarrow.csv.write_csv(rows, file, options)

    def feed(self, folder: Path) -> Any:
        import tensorflow as tf

        def parse(line: Any) -> Any:
            values = tf.strings.to_number(tf.strings.split(line, ","), _PARSED[self.sample.dtype])
            return tf.reshape(tf.cast(values, self.sample.dtype), self.sample.shape)

        lines = tf.data.TextLineDataset(str(folder / "patches.csv"))
        lines = lines.shuffle(self.sample.scaled(BUFFER))
        return self.batched(lines.map(parse, num_parallel_calls=tf.data.AUTOTUNE))


# What TensorFlow parses a number as before it is cast.
_PARSED = {
    "float32": "float32", "float64": "float64", "int64": "int64", "uint32": "int64",
    **dict.fromkeys(("int8", "uint8", "int16", "uint16", "int32"), "int32"),
}  # fmt: skip
