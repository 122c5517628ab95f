"""Statistics of the training split: what is counted of each scene (``tally``), how counts merge
(``numbers``, ``partial``), statistics.json (``document``), tf.Transform (``analysis``)."""
