# Counting. Each function reads a text on its standard input and prints what it counted.

count_lines() {
    local lines=0 line
    while IFS= read -r line; do
        lines=$((lines + 1))
    done
    echo "$lines"
}

# A word ends where a space follows it.
count_words() {
    local words=0 in_word line char i
    while IFS= read -r line || [[ -n $line ]]; do
        in_word=0
        for ((i = 0; i < ${#line}; i++)); do
            char=${line:i:1}
            if [[ $char == [[:space:]] ]]; then
                words=$((words + in_word))
                in_word=0
            else
                in_word=1
            fi
        done
    done
    echo "$words"
}

count_chars() {
    local chars
    chars=$(wc -m)
    echo "$((chars))"
}

# top_words N: the N most frequent words, each with how often it occurs.
top_words() {
    tr -s '[:space:]' '\n' | sort | uniq -c | sort -k1,1nr -k2 | head -n "$1"
}
