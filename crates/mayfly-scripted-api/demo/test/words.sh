check 'an empty text has no words' 0 "$(printf '' | ./tally --words)"
check 'words are what spaces divide' 3 "$(printf 'one two three\n' | ./tally --words)"
check 'spaces around words do not count' 2 "$(printf '  one   two  \n' | ./tally --words)"
check 'words of several lines add up' 4 "$(printf 'one two\nthree four\n' | ./tally --words)"
