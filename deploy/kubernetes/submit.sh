#!/usr/bin/env bash
# Submit a job to Kubernetes; the driver runs in a pod of its own, and the command waits for its end.
#
#   RECSYS_API=https://HOST:6443 RECSYS_IMAGE=registry.example.com/recsys-spark:0.1.0 deploy/kubernetes/submit.sh \
#       jobs/pipeline.py --config /etc/recsys/shop.yaml --run-id night-2024-03-30 --as-of 2024-03-02 --promote
#
# RECSYS_NAMESPACE (recsys), RECSYS_ACCOUNT (recsys, the driver's) and RECSYS_EXECUTOR_ACCOUNT (recsys-executor) are those
# of deploy/kubernetes/account.yaml. spark-submit itself ends with 1 whatever the job's code was; the pod's status and
# its log's last line have it. Where the code matters, run the driver in a pod that you start yourself:
# deploy/kubernetes/night.yaml.
set -euo pipefail
cd "$(dirname "$0")/../.."
job=${1:?names a job of jobs/}
shift
template=$PWD/deploy/kubernetes/pod.yaml
exec "${SPARK_SUBMIT:-.venv/bin/spark-submit}" \
    --master "k8s://${RECSYS_API:?is the address of the API server}" --deploy-mode cluster \
    --name "recsys-$(basename "$job" .py | tr _ -)" \
    --properties-file conf/spark/kubernetes.conf \
    --conf "spark.kubernetes.container.image=${RECSYS_IMAGE:?names the image}" \
    --conf "spark.kubernetes.namespace=${RECSYS_NAMESPACE:-recsys}" \
    --conf "spark.kubernetes.authenticate.driver.serviceAccountName=${RECSYS_ACCOUNT:-recsys}" \
    --conf "spark.kubernetes.authenticate.executor.serviceAccountName=${RECSYS_EXECUTOR_ACCOUNT:-recsys-executor}" \
    --conf "spark.kubernetes.driver.podTemplateFile=$template" \
    --conf "spark.kubernetes.executor.podTemplateFile=$template" \
    "local:///opt/recsys-spark/$job" "$@"
