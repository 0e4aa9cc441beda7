#!/usr/bin/env bash
# Looks at this machine with ovray's own probe and starts Ray on it, with the CPUs that replicas may use and with
# labels that device strings understand.
set -euo pipefail

usage() {
  cat <<'END'
Usage: start_node.sh --head [OPTION...] [-- RAY_START_OPTION...]
       start_node.sh --address HEAD:PORT [OPTION...] [-- RAY_START_OPTION...]

Starts Ray on this machine: the head of a cluster, or a node that joins the one at HEAD:PORT (usually port 6379).

  --head              be the head; makes a token if this user has none
  --address HEAD:PORT join this cluster; its token must be in ~/.ray/auth_token
  --label KEY=VALUE   one more label; repeatable
  --dry-run           print the command and start nothing
  --help              this text

The labels that it finds: ovray-numa-nodes, ovray-gpus, ovray-npus (how many), and ovray-precision (what the CPU
computes in by default: f32, bf16, f16). So '{ovray-gpus!=0}/GPU' means the GPUs of all nodes that have some, and
'{rack=1}/CPU' the CPUs of those started with --label rack=1.

What follows -- goes to `ray start` as it is, such as --node-ip-address=10.0.0.5 or --block.
Environment: PYTHON, the interpreter that has ovray and Ray (default: .venv of this checkout, else python3);
RAY_AUTH_MODE (default: token).
END
}

fail() {
  echo "start_node.sh: $1" >&2
  exit "${2:-2}"
}

role='' address='' dry_run='' labels=() ray_options=()
while [ $# -gt 0 ]; do
  case $1 in
    --head) role="head" ;;
    --address | --label)
      [ $# -ge 2 ] || fail "$1 needs a value; --help shows how"
      if [ "$1" = --label ]; then labels+=("$2"); else address=$2; fi
      shift
      ;;
    --address=*) address=${1#*=} ;;
    --label=*) labels+=("${1#*=}") ;;
    --dry-run) dry_run=yes ;;
    --help | -h)
      usage
      exit 0
      ;;
    --)
      shift
      ray_options=("$@")
      break
      ;;
    *) fail "'$1' is no option of this script; options of \`ray start\` go behind --; --help shows all" ;;
  esac
  shift
done

if [ -n "$role" ] && [ -n "$address" ]; then
  fail "a node is either --head or joins one with --address, not both"
elif [ -z "$role$address" ]; then
  fail "give --head on one machine, and --address HEAD:PORT on the others; --help shows more"
elif [ -n "$address" ] && ! [[ $address =~ ^[^:/]+:[0-9]+$ || $address =~ ^\[[0-9a-fA-F:]+\]:[0-9]+$ ]]; then
  fail "--address '$address': give HEAD:PORT, such as 10.0.0.5:6379"
fi
for label in ${labels[@]+"${labels[@]}"}; do
  [[ $label =~ ^[A-Za-z0-9][A-Za-z0-9._/-]*=[A-Za-z0-9._-]*$ ]] \
    || fail "--label '$label': give KEY=VALUE of letters, digits, '-', '_' and '.'"
done

# --- what runs here -------------------------------------------------------------------------------------------

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
python=${PYTHON:-}
if [ -z "$python" ]; then
  python=python3
  [ ! -x "$here/../.venv/bin/python" ] || python=$here/../.venv/bin/python
fi
command -v "$python" > /dev/null || fail "there is no '$python'; set PYTHON to the interpreter that has ovray and Ray"
missing=$("$python" -c '
import importlib.util
print(", ".join(name for name in ("ovray", "ray", "openvino") if importlib.util.find_spec(name) is None))')
[ -z "$missing" ] || fail "$python has no $missing; install them there (README.md beside this script), or set PYTHON"

# --- who may use it -------------------------------------------------------------------------------------------

export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
# What replicas hold may take ten seconds to complete when a job is told to stop; Ray's own limit is three.
export RAY_JOB_STOP_WAIT_TIME_S=${RAY_JOB_STOP_WAIT_TIME_S:-30}
token_file=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
if [ "$RAY_AUTH_MODE" = token ] && [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "$token_file" ]; then
  [ -n "$role" ] || fail "there is no token in $token_file; copy that of the head here: \
scp HEAD:.ray/auth_token $token_file"
  if [ -z "$dry_run" ]; then
    "$python" -m ray.scripts.scripts get-auth-token --generate > /dev/null
    echo "start_node.sh: made a token in $token_file; copy that file to every other node" >&2
  fi
elif [ "$RAY_AUTH_MODE" != token ]; then
  echo "start_node.sh: RAY_AUTH_MODE=$RAY_AUTH_MODE: whoever reaches this machine can run code on it" >&2
fi

# Ray makes the file so that all users of this machine may read it.
if [ -f "$token_file" ] && [ -O "$token_file" ]; then chmod go= "$token_file"; fi

# --- what it has ----------------------------------------------------------------------------------------------

# Printed as two lines: CPUs, labels.
found=$("$python" - <<'END'
import math
import sys

from ovray.devices.probe import probe_local_host
from ovray.errors import OvrayError

try:
    host = probe_local_host()
except OvrayError as error:
    sys.exit(f"start_node.sh: {error}")
kinds = [device.name.split(".")[0] for device in host.devices]
labels = {
    "ovray-numa-nodes": len([node for node in host.topology.nodes if node.cores]),
    "ovray-gpus": kinds.count("GPU"),
    "ovray-npus": kinds.count("NPU"),
}
precision = next((device.precision for device in host.devices if device.name == "CPU"), "")
if precision:
    labels["ovray-precision"] = precision
cpus = sum(len(core.cpus) for core in host.topology.cores)
quota = host.topology.quota_cpus
print(cpus if quota is None else max(1, min(cpus, math.floor(quota))))
print(",".join(f"{key}={value}" for key, value in labels.items()))
END
) || exit 1
cpus=${found%%$'\n'*}
found_labels=${found##*$'\n'}
all_labels=$(
  IFS=,
  echo "$found_labels${labels[*]+,${labels[*]}}"
)

# --- Ray ------------------------------------------------------------------------------------------------------

command=("$python" -m ray.scripts.scripts start "--num-cpus=$cpus" "--labels=$all_labels" --disable-usage-stats)
if [ -n "$role" ]; then
  # The dashboard, through which jobs come, stays on loopback: an SSH tunnel leads there.
  command+=(--head --port=6379 --dashboard-host=127.0.0.1)
else
  command+=("--address=$address")
fi
command+=(${ray_options[@]+"${ray_options[@]}"})
printf 'start_node.sh:' >&2
printf ' %q' "${command[@]}" >&2
echo >&2
[ -n "$dry_run" ] || exec "${command[@]}"
