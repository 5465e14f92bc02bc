check 'every character counts, newlines too' 8 "$(printf 'one two\n' | ./tally --chars)"
check 'a file is named after its count' '251 samples/harbour.txt' "$(./tally --chars samples/harbour.txt)"
