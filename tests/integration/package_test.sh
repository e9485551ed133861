#!/usr/bin/env bash
# Installs the build, then configures, builds and runs another CMake project that finds it.
set -euo pipefail
build=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flock "$build/.lock" cmake --build "$build" --target satin_shared satin >/dev/null
cmake --install "$build" --prefix "$work/prefix" >/dev/null
cmake -S "$source/tests/integration/package" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_PREFIX_PATH="$work/prefix" >/dev/null
cmake --build "$work/build"
"$work/build/train_a_step"
