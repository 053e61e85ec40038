#!/bin/sh
# Once, on an empty volume: a user and a database for each server, so that neither can read the other's.
set -eu
for name in prefect mlflow; do
    case "$name" in prefect) word=$PREFECT_DB_PASSWORD ;; *) word=$MLFLOW_DB_PASSWORD ;; esac
    psql -v ON_ERROR_STOP=1 -v name="$name" -v word="$word" -U postgres <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'word';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
