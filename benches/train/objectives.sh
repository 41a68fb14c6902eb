#!/bin/sh
# Trains every recipe of data/recipes/objectives at the same budget and prints one table: recall on 1,000
# held-out phantoms, and the seconds of the steps. Usage: objectives.sh DIPTYCH OUT
set -eu
diptych=$1
out=$2
recipes=$(dirname "$0")/../../data/recipes/objectives
mkdir -p "$out"
echo "| objective | text to image @1 / @5 / @10 | image to text @1 / @5 / @10 | seconds |"
echo "|---|---|---|---|"
for recipe in "$recipes"/*.toml; do
    name=$(basename "$recipe" .toml)
    "$diptych" train "$recipe" --out "$out/$name" --restart >"$out/$name.txt"
    seconds=$(sed -n 's/^trained .* in \([0-9.]*\) s .*/\1/p' "$out/$name.txt")
    recall=$(sed -n 's/^held out: text to image recall@1\/5\/10 \([0-9.]*\) \([0-9.]*\) \([0-9.]*\), image to text recall@1\/5\/10 \([0-9.]*\) \([0-9.]*\) \([0-9.]*\),.*/\1 \/ \2 \/ \3 | \4 \/ \5 \/ \6/p' "$out/$name.txt")
    echo "| $name | $recall | $seconds |"
done
echo
echo "chance: recall@1 .001, recall@10 .010"
