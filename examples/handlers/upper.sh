#!/bin/sh
# Answers each message with its value in capitals. jq does the JSON.
exec jq --compact-output --unbuffered \
    '{id, outputs: [{key, value: (.value | ascii_upcase), headers}]}'
