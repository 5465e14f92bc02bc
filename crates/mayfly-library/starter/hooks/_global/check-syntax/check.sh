#!/bin/sh
# After an edit: whether a script still reads. What is said on standard error with exit 2 is told to the agent.
file=$(sed -n 's/.*"file_path": *"\([^"]*\)".*/\1/p' | head -n 1)
[ -f "$file" ] || exit 0

case $file in
*.py) set -- python3 -I -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' ;;
*.sh) if head -n 1 "$file" | grep -q bash; then set -- bash -n; else set -- sh -n; fi ;;
*) exit 0 ;;
esac
command -v "$1" >/dev/null || exit 0

said=$("$@" "$file" 2>&1) && exit 0
printf '%s does not read any more:\n%s\n' "$file" "$said" >&2
exit 2
