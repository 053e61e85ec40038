# The pipeline with every version locked; its build context is the project's folder.
FROM python:3.11.13-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 acclimate \
    && mkdir /acclimate /workspace && chown acclimate /acclimate /workspace
COPY requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock
COPY pyproject.toml README.md LICENSE /opt/acclimate/
COPY tasks /opt/acclimate/tasks
COPY flows /opt/acclimate/flows
RUN pip install --no-cache-dir --no-deps /opt/acclimate
USER acclimate
WORKDIR /workspace
