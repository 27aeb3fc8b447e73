#!/usr/bin/env bash
# Fetch Maven packages, given as `group:name:version,…`, with all that they need into the installed pyspark.
set -euo pipefail
[ -n "${1:-}" ] || exit 0
spark=$(.venv/bin/python -c 'import pathlib, pyspark; print(pathlib.Path(pyspark.__file__).parent)')
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
touch "$folder/nothing.py"  # for spark-submit to run once the jars are there
SPARK_HOME=$spark PYSPARK_PYTHON=$PWD/.venv/bin/python SPARK_LOCAL_IP=127.0.0.1 "$spark/bin/spark-submit" \
    --master 'local[1]' --packages "$1" --conf "spark.jars.ivy=$folder" "$folder/nothing.py"
cp "$folder"/jars/*.jar "$spark/jars/"
