#!/usr/bin/env bash
# See to a Java of 17 or newer: the one of JAVA_HOME or of PATH, else, as root on Debian or Ubuntu, by apt.
# Exits 69 with the command for this platform where it cannot.
set -euo pipefail

version() {  # the major version of a java binary, 0 where it does not run
    "$1" -version 2>&1 | sed -n 's/.*version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p' | head -n 1 | grep . || echo 0
}

if [ -n "${JAVA_HOME:-}" ]; then
    found=$(version "$JAVA_HOME/bin/java")
    [ "$found" -ge 17 ] && exit 0
    echo "error: JAVA_HOME=$JAVA_HOME holds Java $found, and Spark needs 17 or newer: unset it or point it to one" >&2
    exit 69
fi
if command -v java >/dev/null && [ "$(version java)" -ge 17 ]; then
    exit 0
fi

if command -v apt-get >/dev/null; then
    if [ "$(id -u)" = 0 ]; then
        echo "installing a headless Java by apt" >&2
        apt-get -qq update >&2
        for release in 17 21 25; do
            if apt-cache show "openjdk-$release-jre-headless" >/dev/null 2>&1; then
                DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "openjdk-$release-jre-headless" >&2
                exit 0
            fi
        done
    fi
    remedy="sudo apt-get install -y openjdk-17-jre-headless   (or openjdk-21-jre-headless)"
elif command -v brew >/dev/null; then
    remedy='brew install openjdk@17 && export JAVA_HOME="$(brew --prefix openjdk@17)"'
elif command -v dnf >/dev/null; then
    remedy="sudo dnf install -y java-21-openjdk-headless"
elif command -v apk >/dev/null; then
    remedy="sudo apk add openjdk17-jre-headless"
else
    remedy="install any Java of 17 or newer and set JAVA_HOME to it"
fi
echo "error: no Java of 17 or newer: $remedy" >&2
exit 69
