#!/bin/sh
# Writes the log-in's settings (a file is the only way to give them) and becomes the server.
set -eu
umask 077
cat > /mlflow/auth.ini <<INI
[mlflow]
default_permission = READ
database_uri = sqlite:////mlflow/auth.db
admin_username = admin
admin_password = $MLFLOW_ADMIN_PASSWORD
INI
export MLFLOW_AUTH_CONFIG_PATH=/mlflow/auth.ini
exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 \
    --allowed-hosts "127.0.0.1:5000,localhost:5000,mlflow:5000" \
    --backend-store-uri "$MLFLOW_DB" --artifacts-destination /mlflow/artifacts
