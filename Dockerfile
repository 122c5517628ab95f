# One image for the command and for Beam's workers. Wheels only: nothing is compiled here.
FROM python:3.11-slim AS build
COPY --from=ghcr.io/astral-sh/uv:0.13 /uv /usr/local/bin/uv
WORKDIR /src
COPY requirements.lock .
RUN uv venv /opt/scenefeed \
 && uv pip install --python /opt/scenefeed --compile-bytecode --require-hashes -r requirements.lock
COPY setup.py pyproject.toml README.md ./
COPY pipelines pipelines
COPY transforms transforms
COPY loader loader
RUN uv pip install --python /opt/scenefeed --no-deps --no-build-isolation --compile-bytecode .

FROM python:3.11-slim
COPY --from=build /opt/scenefeed /opt/scenefeed
RUN useradd --create-home scenefeed
USER scenefeed
WORKDIR /home/scenefeed
ENV PATH=/opt/scenefeed/bin:$PATH TF_CPP_MIN_LOG_LEVEL=2
ENTRYPOINT ["scenefeed"]
