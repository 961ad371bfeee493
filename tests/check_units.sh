#!/bin/sh
# tests/check_units.sh - the systemd units are well formed and their exposure,
# alone and with the drop-in for a card, is at most 0.5 of 10. Reads the units
# only; no systemd needs to run. Exit status 77: systemd-analyze is missing.
set -eu

if ! command -v systemd-analyze >/dev/null 2>&1; then
    echo "SKIP check_units: systemd-analyze is not installed"
    exit 77
fi
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/units.XXXXXX")
trap 'rm -rf "$dir"' EXIT
failed=0

fail() {
    echo "FAIL check_units: $*"
    failed=1
}

# As `make install` makes them, with a program to start at that prefix.
mkdir -p "$dir/units" "$dir/prefix/bin"
printf '#!/bin/sh\n' >"$dir/prefix/bin/facenetd"
chmod 755 "$dir/prefix/bin/facenetd"
for unit in facenetd.service facenetd.socket; do
    sed -e "s|@PREFIX@|$dir/prefix|g" -e "s|@SYSCONFDIR@|/etc|g" \
        "$root/systemd/$unit" >"$dir/units/$unit"
    if grep -q '@[A-Z]*@' "$dir/units/$unit"; then
        fail "$unit holds a name that make install does not replace"
    fi
done

# verify exits 0 on unknown directives, so any word from it is a failure. It
# also loads every unit of the machine; only ours count.
verify() {
    words=$(SYSTEMD_UNIT_PATH="$dir/units:" systemd-analyze verify --man=no \
        "$dir/units/facenetd.service" "$dir/units/facenetd.socket" 2>&1) ||
        fail "$1: systemd-analyze verify failed"
    words=$(printf '%s\n' "$words" | grep -i 'facenetd\|gpu\.conf' || true)
    [ -z "$words" ] || fail "$1: $words"
}

exposure() {
    if ! out=$(SYSTEMD_UNIT_PATH="$dir/units:" systemd-analyze security \
        --offline=true --no-pager --threshold=5 \
        "$dir/units/facenetd.service" 2>&1); then
        fail "$1: exposure is above 0.5"
        printf '%s\n' "$out" | grep '✗' || true
    fi
    line=$(printf '%s\n' "$out" | grep 'Overall exposure') ||
        fail "$1: no exposure level in: $out"
    echo "$1: ${line#*→ }"
}

verify "service and socket"
exposure "facenetd.service"

mkdir "$dir/units/facenetd.service.d"
cp "$root/systemd/gpu.conf" "$dir/units/facenetd.service.d/gpu.conf"
verify "with gpu.conf"
# The score of the drop-in is only true if the drop-in was read.
SYSTEMD_UNIT_PATH="$dir/units:" systemd-analyze security --offline=true \
    --no-pager "$dir/units/facenetd.service" 2>&1 |
    grep -q '✗.*PrivateDevices' || fail "gpu.conf was not read"
exposure "with gpu.conf"

# systemd kills after TimeoutStopSec; drain-ms must fit into it.
stop=$(sed -n 's/^TimeoutStopSec=//p' "$root/systemd/facenetd.service")
drain=$(sed -n 's/^KEY_INT(drain_ms, "drain-ms", \([0-9]*\),.*/\1/p' \
    "$root/config/keys.def")
[ "$((stop * 1000))" -gt "$((drain + 10000))" ] ||
    fail "TimeoutStopSec=$stop leaves no room for drain-ms=$drain"

# Training jobs: a process of the service that runs out of memory must not end
# it, they may lower their priority, and crops need a place in memory.
for line in OOMPolicy=continue KillMode=mixed RuntimeDirectory=facenetd \
    "SystemCallFilter=setpriority sched_setscheduler"; do
    grep -qx "$line" "$root/systemd/facenetd.service" ||
        fail "facenetd.service lacks $line"
done

[ "$failed" -eq 0 ] && echo "OK check_units"
exit "$failed"
