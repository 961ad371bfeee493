#!/bin/sh
# tests/gpu/check_plugin.sh - the plugin as it was linked: one function is
# exported, the driver's library is not needed to load it, cuDNN is, the CUDA
# runtime is inside, and there is code for every card that we name. Exit status
# 77: it was not built.
set -eu

cd "$(dirname "$0")/../.."
so=build/facenetd-cuda.so
if [ ! -e "$so" ]; then
    echo "SKIP check_plugin: no $so (make gpu)"
    exit 77
fi
failed=0
fail() {
    echo "FAIL check_plugin: $*"
    failed=1
}

names=$(nm -D --defined-only "$so" | awk '{ print $NF }')
[ "$names" = facenetd_backend ] || fail "it exports: $names"
needed=$(readelf -d "$so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
echo "$needed" | grep -q '^libcudnn\.so\.9$' || fail "cuDNN is not needed"
for one in $needed; do
    case $one in
    libcudnn.so.9 | libc.so.6 | libm.so.6 | ld-linux-x86-64.so.2) ;;
    libstdc++.so.6 | libgcc_s.so.1) ;;
    *) fail "it needs $one" ;;
    esac
done
cuobjdump=$(command -v cuobjdump || echo "${CUDA:-/usr/local/cuda}/bin/cuobjdump")
if [ -x "$cuobjdump" ]; then
    have=$("$cuobjdump" --list-elf "$so" | sed -n 's/.*\.sm_\([0-9]*\)\..*/\1/p' |
        sort -nu | tr '\n' ' ')
    echo "code for: $have"
    [ "${GPU_ARCHS:-75 80 86 89 90 100 120} " = "$have" ] ||
        echo "check_plugin: not the whole list of cards"
fi
exit $failed
