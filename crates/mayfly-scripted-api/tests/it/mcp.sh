# A tiny MCP server: one tool, which always answers `pong`.
while IFS= read -r line; do
    [[ $line =~ \"id\":([0-9]+|\"[^\"]*\") ]] || continue
    id=${BASH_REMATCH[1]}
    case $line in
    *'"method":"initialize"'*)
        answer='"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"tiny","version":"1"}}' ;;
    *'"method":"tools/list"'*)
        answer='"result":{"tools":[{"name":"echo","description":"Answers","inputSchema":{"type":"object"}}]}' ;;
    *'"method":"tools/call"'*) answer='"result":{"content":[{"type":"text","text":"pong"}]}' ;;
    *) answer='"error":{"code":-32601,"message":"no such method"}' ;;
    esac
    printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$answer"
done
