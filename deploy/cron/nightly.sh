#!/usr/bin/env bash
# One night by cron: train and judge, then serve the champion; on Sundays search for settings first. A crontab's line:
#
#   30 3 * * *  RECSYS_CONFIG=conf/shop.yaml /opt/recsys-spark/deploy/cron/nightly.sh >>/var/log/recsys-night.log 2>&1
#
# A job is tried again under the same run id where another try can help, up to RECSYS_TRIES times (4), after
# RECSYS_PAUSE seconds (300). The script ends with the exit code of the job that failed, and 75 where one runs already.
# RECSYS_LAUNCHER (.venv/bin/python) runs a job, RECSYS_AS_OF (today, UTC) is the day up to which events are known, and
# models are judged by the RECSYS_JUDGED_DAYS (28) before it. RECSYS_STATE (data/nights) is a folder that stays: tuned
# settings and a lock. stdout has the summaries, one a line.
set -euo pipefail
cd "$(dirname "$0")/../.."

read -r -a launcher <<<"${RECSYS_LAUNCHER:-.venv/bin/python}"
config=${RECSYS_CONFIG:?names the configuration, such as conf/shop.yaml}
name=$(basename "$config" .yaml)
today=$(date -u -d "${RECSYS_AS_OF:-today}" +%F)
judged=$(date -u -d "$today - ${RECSYS_JUDGED_DAYS:-28} days" +%F)
sunday=$(date -u -d "$today - $(($(date -u -d "$today" +%w))) days" +%F)  # the last one, or today
configs=(--config "$config")
state=${RECSYS_STATE:-data/nights}

mkdir -p "$state"
exec 9>"$state/$name.lock"
flock --nonblock 9 || { echo "error: another night with $config is running (exit 75)" >&2; exit 75; }

run() {  # a job with its arguments, until it ends well or for good; its summary is left in $summary
    local job=$1 code try
    shift
    for ((try = 1; ; try++)); do
        code=0
        summary=$("${launcher[@]}" "jobs/$job.py" "${configs[@]}" "$@" 9>&- | tail -n 1) || code=$?
        echo "$summary"
        case $code in
            0) return ;;
            64 | 65 | 70 | 78) break ;;  # usage, data, a fault of the program, configuration: the same tomorrow
        esac
        ((try < ${RECSYS_TRIES:-4})) || break
        echo "night: $job ended with $code; try $((try + 1)) follows in ${RECSYS_PAUSE:-300} s" >&2
        sleep "${RECSYS_PAUSE:-300}"
    done
    echo "night: $job ended with $code after $try tries" >&2
    exit "$code"
}

tuned=$state/tuned/$name/week-$sunday.yaml
if [ "$sunday" = "$today" ] && [ ! -e "$tuned" ]; then
    run ingest --run-id "week-$sunday" --as-of "$judged"
    run build_features --run-id "week-$sunday" --as-of "$judged"
    run tune --run-id "week-$sunday" --as-of "$judged" --out "$state/tuned/$name"
fi
[ ! -e "$tuned" ] || configs+=(--config "$tuned")

run pipeline --run-id "night-$today" --as-of "$judged" --promote
case $summary in
    *'"champion": null'*) echo "night: no model was promoted yet, so none is served" >&2; exit 0 ;;
esac
run build_features --run-id "night-$today" --as-of "$today"
run score_topk --run-id "night-$today" --as-of "$today" --model champion
