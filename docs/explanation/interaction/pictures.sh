#!/bin/sh
# Draws each *.mmd beside this file as *.svg, and writes it into ../interaction.md
# between "<!-- mermaid: NAME -->" and "<!-- end -->". `make pictures` runs it;
# with --check it changes nothing and fails if interaction.md is behind.
set -eu
cd "$(dirname "$0")"
mermaid_cli=@mermaid-js/mermaid-cli@11.17.0
text=../interaction.md

new=$(mktemp)
browser=$(mktemp)
trap 'rm -f "$new" "$browser"' EXIT

awk '
  /^<!-- end -->$/ { inside = 0 }
  !inside
  /^<!-- mermaid: .* -->$/ {
    inside = 1
    print "```mermaid"
    while ((status = (getline line < ($3 ".mmd"))) > 0) print line
    if (status < 0) { print "there is no " $3 ".mmd" > "/dev/stderr"; exit 1 }
    print "```"
  }' "$text" > "$new"

if [ "${1-}" = --check ]; then
  diff -u "$text" "$new" || { echo "docs/explanation/interaction.md is behind docs/explanation/interaction/*.mmd: make pictures" >&2; exit 1; }
  exit
fi

command -v npx >/dev/null || { echo "npx is missing: install Node.js 18.19 or newer with npm" >&2; exit 1; }
chromium=${PUPPETEER_EXECUTABLE_PATH:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
[ -n "$chromium" ] || { echo "chromium is missing: apt-get install chromium, or set PUPPETEER_EXECUTABLE_PATH" >&2; exit 1; }

# As root Chromium has no sandbox; it sees these files only.
echo '{"args": ["--no-sandbox"]}' > "$browser"
export PUPPETEER_SKIP_DOWNLOAD=1 PUPPETEER_EXECUTABLE_PATH="$chromium"
for source in *.mmd; do
  name=${source%.mmd}
  npx --yes --loglevel=error "$mermaid_cli" --quiet --puppeteerConfigFile "$browser" --configFile mermaid.json \
    --backgroundColor white --svgId "$name" --input "$source" --output "$name.svg"
  echo "docs/explanation/interaction/$name.svg"
done
cat "$new" > "$text"
