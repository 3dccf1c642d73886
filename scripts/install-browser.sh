#!/usr/bin/env bash
# Chromium for the browser tests, from Debian or Ubuntu. Without it those tests are skipped.
set -euo pipefail
command -v chromium >/dev/null || command -v chromium-browser >/dev/null && exit 0
if ! command -v apt-get >/dev/null; then
    echo "Install Chromium with your package manager to run the browser tests." >&2
    exit 0
fi
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends chromium chromium-driver
