#!/bin/bash
# Light C runs while the host's vector registers are the guest's: it must call nothing that uses them, such as the C library's memcpy().
# usage: light_test.sh LIBRARY...   (all that is compiled so: what one of them lacks, another must have)
set -euo pipefail

echo 1..1
has=$(nm "$@" 2>/dev/null | awk 'NF == 3 { print $3 }' | sort -u)
# ram_wrote() is for page walks that set accessed and dirty bits, which those of light code do not (PAGING_AGAIN).
lacks=$(nm "$@" 2>/dev/null | awk 'NF == 2 && $1 == "U" && $2 != "ram_wrote" { print $2 }' | sort -u)
missing=$(comm -13 <(echo "$has") <(echo "$lacks"))
if grep -q -e '^__asan_' -e '^__ubsan_' <<<"$missing"; then
    echo "ok 1 - light code calls light code # SKIP sanitizers call their own"
elif [ -z "$has" ] || [ -n "$missing" ]; then
    echo "# calls: ${missing:-nothing at all; there is no code}" | tr '\n' ' '
    echo
    echo "not ok 1 - light code calls light code"
    exit 1
else
    echo "ok 1 - light code calls light code"
fi
