# What has to hold, for scripts that test. Sourced by bash after lib.sh; `diagnose`, which they define, says more when it does not.
# shellcheck shell=bash

passed=0

holds() {
    local what=$1 expected=$2 found=$3
    [[ $found == "$expected" ]] || die "$what: expected '$expected', found '$found'
$(diagnose 2>&1)"
    printf 'ok  %s\n' "$what"
    passed=$((passed + 1))
}

# Looks until it holds, for so many seconds.
soon() {
    local what=$1 seconds=$2 expected=$3 found tries
    shift 3
    for ((tries = 0; tries < seconds * 20; tries++)); do
        found=$("$@")
        [[ $found != "$expected" ]] || break
        sleep 0.05
    done
    holds "$what" "$expected" "$found"
}

# The last line, as test runners write it.
all_hold() {
    printf '\n%s passed, 0 failed\n' "$passed"
}
