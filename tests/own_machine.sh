#!/usr/bin/env bash
# Is the Python of one of several workers that share the tests: on a machine of its own, as far as tests can tell, with
# its own processes, network, shared memory and /tmp.  So none sees another's Ray, core leases or leftovers, and what
# a worker leaves ends with it.
#
# own_machine.sh --can-be-had: ends with 0 where the kernel and the user's rights allow it.
set -euo pipefail

if [ "${1:-}" = --can-be-had ]; then
  command -v unshare ip > /dev/null
  exec unshare --fork --pid --mount --net --ipc --mount-proc --kill-child \
    sh -c 'ip link set lo up && mount -t tmpfs none /tmp'
fi

checkout=$(cd "$(dirname "$0")/.." && pwd)
export OVRAY_TEST_PYTHON="$checkout/.venv/bin/python" OVRAY_TEST_CHECKOUT=$checkout
# Bash stays as the first process, because that has to bury all that lose their parents: a Ray that is ended waits for
# what nobody buries.
exec unshare --fork --pid --mount --net --ipc --mount-proc --kill-child bash -euc '
  ip link set lo up
  # Ray takes the address that leads to the world, so there has to be one, and a way there that leads nowhere.
  ip link add world0 type veth peer name world1
  ip address add 10.78.0.1/24 dev world0
  ip link set world0 up
  ip link set world1 up
  ip route add default via 10.78.0.2
  # A checkout in /tmp has to stay when that is covered; its name leads to what covers it by then.
  exec 9< "$OVRAY_TEST_CHECKOUT"
  mount -t tmpfs -o mode=1777 own /tmp
  case $OVRAY_TEST_CHECKOUT in
    /tmp/*) mkdir -p "$OVRAY_TEST_CHECKOUT" && mount --no-canonicalize --bind /proc/self/fd/9 "$OVRAY_TEST_CHECKOUT" ;;
  esac
  exec 9<&-
  cd "$OVRAY_TEST_CHECKOUT"
  mount -t tmpfs -o mode=1777 own /dev/shm
  mount -t tmpfs -o mode=755 own /run
  mkdir /run/netns /run/lock
  "$OVRAY_TEST_PYTHON" "$@"
  exit 0  # the last command would be run in place of bash
' bash "$@"
