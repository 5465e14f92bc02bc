#!/bin/sh
# When the agent is done: says which files it leaves uncommitted. They come back all the same, as a commit of their own.
changed=$(git status --porcelain 2>/dev/null | head -n 20)
[ -n "$changed" ] || exit 0
printf 'left uncommitted:\n%s\n' "$changed"
