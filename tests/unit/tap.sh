#!/bin/bash
# Runs a unit test. cmocka says "not ok" of a case that is skipped, which TAP calls "ok".
"$@" | sed -u 's/^not ok \([0-9]* # SKIP\)/ok \1/'
exit "${PIPESTATUS[0]}"
