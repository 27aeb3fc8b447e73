#!/usr/bin/env bash
# Submit a job to YARN; the driver runs here, so its exit code, its progress and its summary are this command's.
#
#   HADOOP_CONF_DIR=/etc/hadoop/conf deploy/yarn/submit.sh jobs/pipeline.py --config conf/shop.yaml --run-id night
#
# RECSYS_PYTHON (.venv/bin/python of this folder) must lie at the same path on every node, with the same packages: Spark
# is theirs, whatever version the cluster has, and nothing of it is uploaded. Options of spark-submit go before the job.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${HADOOP_CONF_DIR:?is the folder of yarn-site.xml and core-site.xml}"
python=${RECSYS_PYTHON:-$PWD/.venv/bin/python}
SPARK_HOME=$("$python" -c 'import pathlib, pyspark; print(pathlib.Path(pyspark.__file__).parent)')
export SPARK_HOME PYSPARK_PYTHON=$python
exec "$SPARK_HOME/bin/spark-submit" \
    --master yarn --deploy-mode client \
    --properties-file conf/spark/yarn.conf \
    --conf "spark.yarn.jars=local:$SPARK_HOME/jars/*" \
    --conf "spark.pyspark.python=$python" \
    --py-files dist/recsys_spark.zip \
    "$@"
