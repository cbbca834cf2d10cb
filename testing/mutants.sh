#!/usr/bin/env bash
# Runs mutation tests of the code that decides about money, with cargo-mutants. The tests of each package must kill every
# mutant, except those that .cargo/mutants.toml excludes with a reason. `mutants.sh NAME` tests one group. cargo-mutants
# changes a copy of the checkout. cargo-nextest runs the tests, because it stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${ORDERS_CACHE:-$HOME/.cache/orders}
# The mutants have their own target directory, so that nothing else runs a mutated program.
export CARGO_TARGET_DIR=$cache/mutants/target
mkdir -p "$cache/mutants"
only=${1:-}
failed=0
rows=()

# Arguments: NAME, PACKAGE, FILES (of the package, separated by spaces), and the arguments that select its tests.
group() {
  local name=$1 package=$2 files=() file
  for file in $3; do files+=(--file "$file"); done
  shift 3
  [ -z "$only" ] || [ "$only" = "$name" ] || return 0
  printf '\n== mutants of %s\n' "$name"
  cargo mutants --package "$package" "${files[@]}" --output "$cache/mutants/$name" --colors never --minimum-test-timeout 120 \
    --timeout-multiplier 4 --test-tool nextest -- "$@" || failed=1
  local out=$cache/mutants/$name/mutants.out
  rows+=("$(printf '%-14s %6d %6d %8d %9d %8d' "$name" "$(cat "$out"/{caught,missed,timeout}.txt | wc -l)" "$(wc -l < "$out/caught.txt")" \
    "$(wc -l < "$out/timeout.txt")" "$(wc -l < "$out/unviable.txt")" "$(wc -l < "$out/missed.txt")")")
}

group decision orders-operator "operator/src/order/decide.rs operator/src/order/intent.rs operator/src/order/status.rs operator/src/order/execute.rs operator/src/order/lifecycle.rs" --lib --test suite
group ledger orders-billing "billing/src/ledger/*.rs" --test suite
group money orders-crds "crds/src/money.rs crds/src/conditions.rs crds/src/order.rs crds/src/outcome.rs" --lib
group contracts orders-contracts "contracts/src/outcome.rs contracts/src/texts.rs" --lib
group audit orders-audit "audit/src/check.rs" --lib

printf '\n%-14s %6s %6s %8s %9s %8s\n' group mutants killed 'timed out' 'do not compile' survived
printf '%s\n' "${rows[@]}"
exit $failed
