# MLflow's server with the driver of PostgreSQL and what its log-in needs.
FROM python:3.11.13-slim-bookworm
RUN pip install --no-cache-dir "mlflow[auth]==3.17.2" psycopg2-binary==2.9.13 \
    && useradd --create-home --uid 1000 mlflow && mkdir /mlflow && chown mlflow /mlflow
COPY mlflow_start.sh /usr/local/bin/mlflow_start
USER mlflow
CMD ["sh", "/usr/local/bin/mlflow_start"]
