FROM python:3.11-slim

ARG EXTRAS=""

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    MNE_DATA=/data \
    HF_HOME=/cache/huggingface \
    XDG_CACHE_HOME=/cache

RUN useradd --create-home --uid 1000 eeg \
    && mkdir -p /data /cache /work \
    && chown eeg:eeg /data /cache /work

COPY pyproject.toml README.md LICENSE MANIFEST.in /src/
COPY eegprep /src/eegprep
COPY dreamdiff /src/dreamdiff
COPY cli /src/cli
COPY data_manifests /src/data_manifests

RUN pip install "/src${EXTRAS}" && rm -rf /src

USER eeg
WORKDIR /work
VOLUME ["/data", "/cache", "/work"]

CMD ["eegprep", "doctor"]
