# One image for the command and for Beam's workers. Wheels, but for one package: nothing is compiled.
#   docker build --tag scenefeed:0.1.0 .
#   docker run --entrypoint scenefeed scenefeed:0.1.0 convert ...    the command
#   docker run scenefeed:0.1.0 --worker_pool                         workers
FROM python:3.11-slim-bookworm
# rasterio's wheel needs libexpat, which slim images lack. Not pinned: Debian's stable release
# mends it without changing its interface, and keeps no older one.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libexpat1 \
 && rm -rf /var/lib/apt/lists/*
# The version is requirements.lock's (tests/deploy/test_image.py): boot starts that Beam.
COPY --from=apache/beam_python3.11_sdk:2.77.0 /opt/apache/beam /opt/apache/beam
WORKDIR /opt/scenefeed
COPY requirements.lock ./
# google-apitools, which Beam pins, has no wheel of that version; it is Python alone.
RUN python -m pip install --no-cache-dir uv==0.13.* \
 && uv pip install --system --no-cache --compile-bytecode --require-hashes \
      --only-binary :all: --no-binary google-apitools --build-constraints requirements.lock \
      -r requirements.lock \
 && python -m pip uninstall --yes uv
COPY setup.py pyproject.toml README.md ./
COPY pipelines pipelines
COPY transforms transforms
COPY loader loader
RUN python -m pip install --no-cache-dir --no-index --no-deps --no-build-isolation . \
 && useradd --uid 1000 --create-home scenefeed
# A number: Kubernetes' runAsNonRoot does not resolve names.
USER 1000
WORKDIR /home/scenefeed
# Without the second, Beam's boot makes a virtual environment for each worker, in a folder that
# only root may write to.
ENV TF_CPP_MIN_LOG_LEVEL=2 \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
ENTRYPOINT ["/opt/apache/beam/boot"]
