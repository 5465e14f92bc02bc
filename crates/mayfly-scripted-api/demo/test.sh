#!/usr/bin/env bash
# Runs the checks of the files named, or of all in test/. Exits with 1 if any failed.
cd "$(dirname "$0")" || exit 1
passed=0
failed=0

check() { # check WHAT EXPECTED ACTUAL
    if [[ $3 == "$2" ]]; then
        passed=$((passed + 1))
        echo "ok    $1"
    else
        failed=$((failed + 1))
        echo "FAIL  $1: expected '$2', got '$3'"
    fi
}

files=("$@")
((${#files[@]} > 0)) || files=(test/*.sh)
for file in "${files[@]}"; do
    source "$file"
done

echo "$passed passed, $failed failed"
((failed == 0))
