#!/usr/bin/env bash
# Submit a job to YARN; the driver runs here, so its exit code, its progress and its summary are this command's.
#
#   HADOOP_CONF_DIR=/etc/hadoop/conf deploy/yarn/submit.sh jobs/pipeline.py --config conf/shop.yaml --run-id night
#
# RECSYS_PYTHON (.venv/bin/python of this folder) must lie at the same path on every node, with the same packages. Spark
# is that of its packages, whatever version the cluster has; RECSYS_ARCHIVE, an archive of its jars in HDFS
# (hdfs:///apps/recsys/spark-4.2.0.zip), spares 300 MB of upload a job.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${HADOOP_CONF_DIR:?is the folder of yarn-site.xml and core-site.xml}"
python=${RECSYS_PYTHON:-$PWD/.venv/bin/python}
options=()
[ -z "${RECSYS_ARCHIVE:-}" ] || options+=(--conf "spark.yarn.archive=$RECSYS_ARCHIVE")
PYSPARK_PYTHON=$python exec "${SPARK_SUBMIT:-.venv/bin/spark-submit}" \
    --master yarn --deploy-mode client \
    --properties-file conf/spark/yarn.conf \
    --conf "spark.pyspark.python=$python" "${options[@]}" \
    --py-files dist/recsys_spark.zip \
    "$@"
