#!/bin/sh
# tests/check_install.sh - make install and make uninstall into a directory of
# their own, with both usual prefixes: the right files, man pages and units
# that read well, a daemon that serves with the settings that were installed,
# and nothing but settings and models left. Exit status 77: not the release
# build, which is the one that is installed.
set -eu

if [ "${V:-release}" != release ]; then
    echo "SKIP check_install: $V is not installed"
    exit 77
fi
cd "$(dirname "$0")/.."
# What a make around us was told is not for the one that runs here.
unset MAKEFLAGS MAKELEVEL MFLAGS V DESTDIR UNITDIR MANDIR || true
dir=$(mktemp -d "${TMPDIR:-/tmp}/install.XXXXXX")
daemon=
failed=0

clean_up() {
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

fail() {
    echo "FAIL check_install: $*"
    failed=1
}

files() {
    (cd "$1" && find . -type f ! -name '*.onnx' -printf '/%P %m\n' | sort)
}

expected() {
    {
        [ ! -e build/facenetd-cuda.so ] ||
            echo "$1/lib/facenetd/facenetd-cuda.so 755"
        cat <<END
/etc/facenetd/facenetd.conf 644
$1/bin/facenetctl 755
$1/bin/facenetd 755
$1/lib/systemd/system/facenetd.service 644
$1/lib/systemd/system/facenetd.socket 644
$1/share/doc/facenetd/gpu.conf 644
$1/share/man/man1/facenetctl.1 644
$1/share/man/man5/facenetd.conf.5 644
$1/share/man/man8/facenetd.8 644
END
    } | sort
}

man_pages() {
    command -v man >/dev/null 2>&1 || {
        echo "man is not installed: pages not read"
        return
    }
    for page in "$1"/man?/*; do
        LC_ALL=C MANWIDTH=80 man --warnings -l "$page" \
            >"$dir/page" 2>"$dir/words" || fail "man: ${page##*/}"
        [ ! -s "$dir/words" ] ||
            fail "${page##*/}: $(head -n 3 "$dir/words")"
        grep -q '^NAME' "$dir/page" || fail "${page##*/} has no NAME"
    done
}

# What the service starts, and with which settings; check_units.sh has the rest.
units() {
    grep -qx "ExecStart=$2/bin/facenetd --config /etc/facenetd/facenetd.conf" \
        "$1$2/lib/systemd/system/facenetd.service" ||
        fail "facenetd.service starts something else"
}

# Small networks with random weights: what matters is that it starts.
models() {
    mkdir "$dir/models"
    for pair in embedder:mobilefacenet detector_pnet:mtcnn_pnet \
        detector_rnet:mtcnn_rnet detector_onet:mtcnn_onet; do
        "$1/bin/facenetctl" model new --arch "${pair#*:}" --seed 7 \
            -o "$dir/models/${pair%:*}.onnx" >/dev/null
    done
}

serves() {
    : >"$dir/log" # not the last one's word that it is ready
    env -u NOTIFY_SOCKET -u LISTEN_FDS -u LISTEN_PID \
        "$2/bin/facenetd" --config "$1/etc/facenetd/facenetd.conf" \
        --listen 127.0.0.1:0 --data-dir "$dir/data" \
        --models "$dir/models" >"$dir/out" 2>"$dir/log" &
    daemon=$!
    tries=0
    until grep -q 'event=ready' "$dir/log"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 600 ] || ! kill -0 "$daemon" 2>/dev/null; then
            fail "did not start: $(tail -n 3 "$dir/log")"
            return
        fi
        sleep 0.1
    done
    kill "$daemon"
    wait "$daemon" || fail "ended with $?: $(tail -n 3 "$dir/log")"
    daemon=
}

for prefix in /usr /usr/local; do
    root=$dir/root$prefix
    make -s install DESTDIR="$root" PREFIX=$prefix >"$dir/made" 2>&1 ||
        fail "make install PREFIX=$prefix: $(tail -n 5 "$dir/made")"
    expected $prefix >"$dir/expected"
    files "$root" >"$dir/files"
    diff "$dir/expected" "$dir/files" ||
        fail "PREFIX=$prefix installs other files"
    if grep -rnIE --include='facenetd*' '@[A-Z]+@' "$root/etc" \
        "$root$prefix/lib" "$root$prefix/share"; then
        fail "a name that was to be replaced is left"
    fi
    [ "$(sed -n 's/^models = //p' "$root/etc/facenetd/facenetd.conf")" = \
        "$prefix/share/facenetd/models" ] || fail "models in facenetd.conf"
    man_pages "$root$prefix/share/man"
    units "$root" $prefix
    [ -d "$dir/models" ] || models "$root$prefix"
    serves "$root" "$root$prefix"

    # An edited facenetd.conf outlives the next install, and the removal.
    echo "# edited" >>"$root/etc/facenetd/facenetd.conf"
    make -s install DESTDIR="$root" PREFIX=$prefix >"$dir/made" 2>&1 ||
        fail "make install again: $(tail -n 5 "$dir/made")"
    make -s uninstall DESTDIR="$root" PREFIX=$prefix >"$dir/made" 2>&1 ||
        fail "make uninstall: $(tail -n 5 "$dir/made")"
    [ "$(files "$root")" = "/etc/facenetd/facenetd.conf 644" ] ||
        fail "left after make uninstall: $(files "$root")"
    grep -qx '# edited' "$root/etc/facenetd/facenetd.conf" ||
        fail "facenetd.conf was replaced"
done

[ "$failed" -eq 0 ] && echo "OK check_install"
exit "$failed"
