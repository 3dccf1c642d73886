#!/usr/bin/env bash
# What the tests need beside Python, from Debian or Ubuntu: Chromium with a font (without it the browser tests are
# skipped), and the libraries that MediaPipe (EGL, GLES), OpenCV (GL, glib) and Playwright (atomic) load.
# `install-system.sh libraries`: only those of MediaPipe and OpenCV, which a server without a desktop lacks.
set -euo pipefail
packages="libegl1 libgles2 libgl1 libglib2.0-0"
[ "${1:-}" = libraries ] || packages="chromium fonts-dejavu-core $packages libatomic1"
if ! command -v apt-get >/dev/null; then
    echo "Install with your package manager what is here called: $packages" >&2
    exit 0
fi
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086  # a list
$sudo apt-get install -y -qq --no-install-recommends $missing
