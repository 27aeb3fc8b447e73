#!/usr/bin/env bash
# See to a Java of 17 or newer: the one of JAVA_HOME or of PATH, else, as root on Debian or Ubuntu, by apt.
# Exits 69 with the command for this platform where it cannot.
set -euo pipefail

version() {  # the major version of a java binary, 0 where there is none or it does not run
    local words
    words=$("$1" -version 2>&1) || true
    sed -n 's/.*version "\(1\.\)\{0,1\}\([0-9]\{1,\}\).*/\2/p' <<<"$words" | sed -n 1p | grep . || echo 0
}

stop() {
    echo "error: $1 (exit 69)" >&2
    exit 69
}

if [ -n "${JAVA_HOME:-}" ]; then  # Spark prefers it to PATH, so a wrong one would win
    [ -x "$JAVA_HOME/bin/java" ] || stop "JAVA_HOME=$JAVA_HOME holds no bin/java: unset it or point it to a Java of 17 or newer"
    found=$(version "$JAVA_HOME/bin/java")
    [ "$found" -ge 17 ] || stop "JAVA_HOME=$JAVA_HOME holds Java $found, and Spark needs 17 or newer: unset it or point it to one"
    exit 0
fi
[ "$(version java)" -lt 17 ] || exit 0

package() {  # the first headless Java of 17 or newer that apt offers
    local release
    for release in 17 21 25; do
        # To the end of what apt-cache says: grep -q would hang up on it, which pipefail takes for a failure.
        if apt-cache show "openjdk-$release-jre-headless" 2>/dev/null | grep '^Package:' >/dev/null; then
            echo "openjdk-$release-jre-headless"
            return
        fi
    done
}

if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo "; fi
if command -v apt-get >/dev/null; then
    name=$(package)
    if [ "$(id -u)" = 0 ]; then
        log=$(mktemp)
        trap 'rm -f "$log"' EXIT
        echo "installing a headless Java by apt" >&2
        apt-get -q update >"$log" 2>&1 || true  # one broken source need not matter: the installation tells
        name=$(package)
        if [ -n "$name" ] && DEBIAN_FRONTEND=noninteractive apt-get -q install -y "$name" >>"$log" 2>&1; then
            [ "$(version java)" -lt 17 ] || exit 0
            home=$(ls -d /usr/lib/jvm/java-*-openjdk-* 2>/dev/null | grep -E 'java-(1[7-9]|[2-9][0-9])-' | sed -n 1p || true)
            stop "$name is installed, but $(command -v java) is Java $(version java): export JAVA_HOME=$home"
        fi
        grep -E '^(E|W|Err):' "$log" >&2 || tail -n 5 "$log" >&2
    fi
    remedy="${sudo}apt-get update && ${sudo}apt-get install -y ${name:-openjdk-17-jre-headless}"
elif command -v brew >/dev/null; then
    remedy='brew install openjdk@17 && export JAVA_HOME="$(brew --prefix openjdk@17)"'
elif command -v dnf >/dev/null; then
    remedy="${sudo}dnf install -y java-21-openjdk-headless"
elif command -v apk >/dev/null; then
    remedy="${sudo}apk add openjdk17-jre-headless"
else
    remedy="install any Java of 17 or newer and set JAVA_HOME to it"
fi
stop "no Java of 17 or newer: $remedy"
