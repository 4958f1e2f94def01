#!/usr/bin/env bash
# What the tests here start, installed where that can be had: Debian's packages by root alone, Python's into .venv. What
# can't be had is a line, and tests that need it are skipped.
set -u
cd "$(dirname "$0")/../.."
said=$(mktemp)
trap 'rm -f "$said"' EXIT

there() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }
postgresql() { for found in /usr/lib/postgresql/*/bin/initdb initdb; do "$found" --version && return; done; false; } >/dev/null 2>&1 # it starts
slurm() { there munged && there slurmctld && there slurmd && there sbatch; }

debian() { # TEST PACKAGE…
  local test=$1
  shift
  "$test" && return
  if [ "$(id -u)" != 0 ] || ! there apt-get; then
    echo "no $test here: its tests are skipped (as root: apt-get install $*)"
    return
  fi
  [ -n "${updated:-}" ] || timeout 300 apt-get update -q >"$said" 2>&1 </dev/null
  updated=1
  DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -q -y --no-install-recommends "$@" >"$said" 2>&1 </dev/null
  "$test" || echo "no $test can be had here: its tests are skipped (apt-get install $*: $(tail -n 1 "$said"))"
}

python() { # EXTRA
  .venv/bin/pip install -q -c constraints.txt --no-build-isolation -e ".[$1]" >"$said" 2>&1 </dev/null
}

debian postgresql postgresql
debian slurm slurmctld slurmd slurm-client munge
if ! python integration; then
  for extra in postgres ray slurm launchers; do
    python "$extra" || echo "no extra $extra can be had here: its tests are skipped ($(grep -m 1 -i error "$said" || tail -n 1 "$said"))"
  done
fi
exit 0
