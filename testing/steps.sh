#!/usr/bin/env bash
# Runs make targets one after the other: `steps.sh NAME TARGET=SECONDS…`. Before the first target, it prints what each
# target does and its expected duration: that of the last run on this machine, or else SECONDS. At the end, it prints the
# duration and the test results of each target. It stops at the first target that fails, and prints the path of its log.
set -uo pipefail
cd "$(dirname "$0")/.."
cache=${ORDERS_CACHE:-$HOME/.cache/orders}
times=$cache/times
logs=$cache/log/steps
mkdir -p "$times" "$logs"

name=$1
shift
declare -A seconds
steps=()
for step in "$@"; do
  steps+=("${step%%=*}")
  seconds[${step%%=*}]=$(cat "$times/${step%%=*}" 2>/dev/null || echo "${step#*=}")
done

description() { sed -n "s/^$1:.*## //p" Makefile; }
duration() { printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); }

# Prints the sums of passed and failed tests, from the last lines that cargo test and the fault harness print.
counted() {
  awk '/^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1) } }
       /^faults tried [0-9]+, / { gsub(",", ""); bad = $5 + $7 + ($8 == "not" ? $10 : 0); p += $3 - bad; f += bad }
       END { printf "%d %d\n", p, f }' "$@" /dev/null
}

done_steps=()
declare -A took
table() {
  printf '\n%-20s %12s %8s %8s\n' step took passed failed
  local sum=0 files=()
  for step in "${done_steps[@]}"; do
    read -r passed failed < <(counted "$logs/$step.log")
    printf '%-20s %12s %8d %8d\n' "$step" "$(duration "${took[$step]}")" "$passed" "$failed"
    sum=$((sum + took[$step]))
    files+=("$logs/$step.log")
  done
  printf '%-20s %12s\n' "total" "$(duration $sum)"
  read -r passed failed < <(counted "${files[@]}")
  printf '\ntests: %d passed, %d failed\n' "$passed" "$failed"
}

total=0
for step in "${steps[@]}"; do total=$((total + seconds[$step])); done
printf '== make %s: %d steps, about %s\n' "$name" ${#steps[@]} "$(duration $total)"
for step in "${steps[@]}"; do printf '   %-20s %12s  %s\n' "$step" "$(duration "${seconds[$step]}")" "$(description "$step")"; done
[ -x "$cache/bin/current/kubelet" ] || printf '   The first time on a machine it compiles Kubernetes as well: ten to twenty minutes more.\n'

trap 'table; echo "interrupted"; exit 130' INT TERM
for step in "${steps[@]}"; do
  start=$SECONDS
  make --no-print-directory "$step" 2>&1 | tee "$logs/$step.log"
  status=${PIPESTATUS[0]}
  took[$step]=$((SECONDS - start))
  done_steps+=("$step")
  if [ "$status" -ne 0 ]; then
    table
    printf '\n%s failed; complete output: %s; repeat with: make %s\n' "$step" "$logs/$step.log" "$step" >&2
    exit 1
  fi
  echo "${took[$step]}" > "$times/$step"
  # Later targets need not check the build again.
  [ "$step" != build ] || export BUILT=1
done
table
