#!/usr/bin/env bash
# What a container starts: `driver …` and `executor` as Spark's scheduler for Kubernetes asks for them by arguments and
# variables, anything else as it stands.
set -euo pipefail

case ${1:-} in
    driver)
        shift
        command=(
            "$SPARK_HOME/bin/spark-submit" --deploy-mode client
            --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS"
            --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS"
            "$@"
        )
        ;;
    executor)
        # SPARK_JAVA_OPT_0, _1, … are the JVM's options, in this order.
        options=()
        for ((number = 0; ; number++)); do
            name=SPARK_JAVA_OPT_$number
            [ -n "${!name:-}" ] || break
            options+=("${!name}")
        done
        command=(
            java "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY"
            -cp "${SPARK_CONF_DIR:-$SPARK_HOME/conf}:$SPARK_HOME/jars/*${SPARK_EXTRA_CLASSPATH:+:$SPARK_EXTRA_CLASSPATH}"
            org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend
            --driver-url "$SPARK_DRIVER_URL"
            --executor-id "$SPARK_EXECUTOR_ID"
            --cores "$SPARK_EXECUTOR_CORES"
            --app-id "$SPARK_APPLICATION_ID"
            --hostname "$SPARK_EXECUTOR_POD_IP"
            --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID"
            --podName "$SPARK_EXECUTOR_POD_NAME"
        )
        ;;
    *)
        command=("$@")
        ;;
esac
# A signal reaches the command, not what it started: a script in its place has to hand SIGTERM on to its job.
exec /usr/bin/tini -s -- "${command[@]}"
