"""What TensorFlow Data Validation finds in TFRecords. Runs in its own environment, `.venv-tfdv`:

    python validate.py SCHEMA TFRECORDS...

prints a JSON list, for each pattern how many `examples` there are, and the `anomalies` by feature.
"""

import json
import sys

import tensorflow_data_validation as tfdv
from apache_beam.options.pipeline_options import PipelineOptions


def validate(schema, records: str) -> dict:
    # The runner of this process: DirectRunner may look for another one.
    statistics = tfdv.generate_statistics_from_tfrecord(
        records, stats_options=tfdv.StatsOptions(schema=schema),
        pipeline_options=PipelineOptions(["--runner=FnApiRunner"]),
    )  # fmt: skip
    found = tfdv.validate_statistics(statistics, schema)
    return {
        "examples": statistics.datasets[0].num_examples,
        "anomalies": {name: a.description for name, a in found.anomaly_info.items()},
    }


if __name__ == "__main__":
    schema = tfdv.load_schema_text(sys.argv[1])
    print(json.dumps([validate(schema, records) for records in sys.argv[2:]]))
