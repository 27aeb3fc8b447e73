#!/usr/bin/env bash
# One night by cron: train and judge, then serve the champion; on Sundays search for settings first. A crontab:
#
#   MAILTO=you@example.com
#   RECSYS_CONFIG=conf/shop.yaml
#   LOG=/var/log/recsys-night.log
#   30 3 * * *  timeout --kill-after=60 20h /opt/recsys-spark/deploy/cron/nightly.sh >>$LOG 2>&1 || tail -n 3 $LOG
#
# cron mails what is printed: the log's last lines where a night failed or was ended, as it is after 20 hours.
#
# A job is tried again under the same run id where another try can help, up to RECSYS_TRIES times (4), after
# RECSYS_PAUSE seconds (300). The script ends with the exit code of the job that failed, and 75 where one runs already.
# A search that fails does not end the night, which goes on with the last settings that were found. A night that is
# given again takes the settings that it began with, and searches no more: its training could not go on with others.
# SIGTERM, SIGINT and SIGHUP are handed on to the job, as SIGTERM; the script waits for it, tries no more, has its code.
# RECSYS_LAUNCHER (.venv/bin/python) runs a job, RECSYS_AS_OF (today, UTC) is the day up to which events are known, and
# models are judged by the RECSYS_JUDGED_DAYS (28) before it. RECSYS_STATE (data/nights) is a folder that stays: tuned
# settings, those that each night began with, a lock, and the stdout of the job that runs. stdout has the summaries, one
# a line. Linux only: it needs flock and GNU's date.
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

# bash acts on a signal only between commands and while it waits: what takes long is a child that it waits for.
child='' stops=0
stop() {
    stops=$((stops + 1))
    [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true
}
trap stop TERM INT HUP

attend() {  # a command as a child, which the lock is not handed to, until it has ended; returns its code
    local code seen
    "$@" 9>&- &
    child=$!
    ((stops == 0)) || kill -TERM "$child" 2>/dev/null || true  # asked before there was a child to ask
    while :; do
        seen=$stops code=0
        wait "$child" || code=$?
        ((stops > seen)) || break  # else the signal ended the wait, not the child
    done
    child=''
    return "$code"
}

output=$state/$name.stdout
run() {  # a job with its arguments, until it ends well or for good; its summary is left in $summary
    local job=$1 code=75 try
    shift
    for ((try = 1; stops == 0; try++)); do
        code=0
        attend "${launcher[@]}" "jobs/$job.py" "${configs[@]}" "$@" >"$output" || code=$?
        summary=$(tail -n 1 "$output" 9>&-)
        echo "$summary"
        case $code in
            0) return ;;
            64 | 65 | 70 | 78) break ;;  # usage, data, a fault of the program, configuration: the same tomorrow
            126 | 127) break ;;  # the launcher cannot be run, or is not there
        esac
        ((stops == 0 && try < ${RECSYS_TRIES:-4})) || break
        echo "night: $job ended with $code; try $((try + 1)) follows in ${RECSYS_PAUSE:-300} s" >&2
        attend sleep "${RECSYS_PAUSE:-300}" || true
    done
    if ((stops > 0)); then
        echo "night: told to stop at $job (exit $code)" >&2
        exit "$code"
    fi
    echo "night: $job ended with $code after $try tries" >&2
    return "$code"
}

tuned=$state/tuned/$name
begun=$state/$name.night-$today  # holds the path of the settings that the night began with, or nothing
if [ "$sunday" = "$today" ] && [ ! -e "$begun" ] && [ ! -e "$tuned/week-$today.yaml" ]; then
    week=(--run-id "week-$today" --as-of "$judged")
    if ! { run ingest "${week[@]}" && run build_features "${week[@]}" && run tune "${week[@]}" --out "$tuned"; }; then
        echo "night: the search for settings failed, the night goes on without it" >&2
    fi
fi
settings=''
if [ -e "$begun" ]; then
    settings=$(<"$begun")
else
    for found in "$tuned"/week-*.yaml; do  # by date; a later week's are not for this night
        [ ! -e "$found" ] || [[ $found > $tuned/week-$sunday.yaml ]] || settings=$found
    done
    echo "$settings" >"$begun.part"
    mv "$begun.part" "$begun"  # whole or not at all: a disk may be full
fi
[ -z "$settings" ] || configs+=(--config "$settings")

run pipeline --run-id "night-$today" --as-of "$judged" --promote
case $summary in
    *'"champion": null'*) echo "night: no model was promoted yet, so none is served" >&2; exit 0 ;;
esac
run build_features --run-id "night-$today" --as-of "$today"
run score_topk --run-id "night-$today" --as-of "$today" --model champion
