#!/usr/bin/env bash
# What an NVIDIA GPU does with the gateway, in under ten minutes: sets up MLX for CUDA 13 and runs benchmarks/gpu.py,
# which prints one table and writes everything into a folder (--out, $OUT or gpu-results).
#
#   benchmarks/gpu.sh [WORDS OF gpu.py]
#       with uv and a package index: the cuda group of pyproject.toml, in .venv-cuda
#   benchmarks/gpu.sh --pack FOLDER [--python-version 3.12] [--omit FILE] [--part-mb 45]
#       on a machine with uv and a package index: packs that group into FOLDER, in parts of that many MB. FILE names
#       packages, one a line, that the other machine's python3 has, such as nvidia-cublas; a package is left out as it
#       is there, whatever its version
#   benchmarks/gpu.sh --packed FOLDER [--packed FOLDER] [WORDS OF gpu.py]
#       on a machine without an index: unpacks what --pack made, and runs it with python3, of the version packed for
#   benchmarks/gpu.sh --python PATH [WORDS OF gpu.py]
#       with a prepared interpreter that has all packages of the group
#   benchmarks/gpu.sh --tiny
#       toys on the CPU, to try the script; also after --packed and --python
#
# Needed: Linux x86-64 with glibc 2.35, a driver for CUDA 13, Python 3.11 to 3.14 (--packed: with headers of CUDA 13 in
# its package nvidia-cuda-runtime or in CUDA_HOME), 20 GB of disk in TMPDIR for random weights, 24 GB of memory. With
# less than 40 GB on the GPU the unquantised comparison is skipped. Nothing is downloaded but packages.
set -euo pipefail
cd "$(dirname "$0")/.."

group=cuda version='' omit='' part_mb=45 pack='' python='' words=() packed=()
while (($#)); do
  case $1 in
    --pack) pack=$2; shift 2 ;;
    --packed) packed+=("$2"); shift 2 ;;
    --python) python=$2; shift 2 ;;
    --python-version) version=$2; shift 2 ;;
    --omit) omit=$2; shift 2 ;;
    --part-mb) part_mb=$2; shift 2 ;;
    --tiny) group=cpu; words+=("$1"); shift ;;
    *) words+=("$1"); shift ;;
  esac
done

sync=(--no-default-groups --group "$group")

pack() {
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  version=${version:-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
  uv export --quiet "${sync[@]}" --no-hashes --no-emit-project --no-annotate --output-file "$site/all.txt" >/dev/null
  python3 - "$site/all.txt" "$omit" >"$site/wanted.txt" <<'PYTHON'
import re, sys
def name(line):
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>!~ ;\[]", line.strip())[0]).lower()
omitted = {name(line) for line in open(sys.argv[2])} if sys.argv[2] else set()
print("".join(line for line in open(sys.argv[1]) if line.strip()[:1] not in "#" and name(line) not in omitted))
PYTHON
  uv pip install --quiet --no-deps --no-compile-bytecode --python-version "$version" \
    --python-platform x86_64-manylinux_2_35 --target "$site/packages" --requirements "$site/wanted.txt"
  mkdir -p "$pack"
  rm -f "$pack"/packages.tar.xz.*
  tar -C "$site/packages" -c . | xz -T0 -3 | split -d -b "${part_mb}M" - "$pack/packages.tar.xz."
  ls -l "$pack"
}

unpack() {
  local site
  site=${TMPDIR:-/tmp}/gpu-packages-$UID
  mkdir -p "$site"
  # The parts may lie in several folders; their names sort them.
  mapfile -t parts < <(find "${packed[@]}" -maxdepth 1 -name 'packages.tar.xz.*' -printf '%f\t%p\n' | sort | cut -f2)
  ((${#parts[@]})) || { echo "no packages.tar.xz.* in ${packed[*]}" >&2; exit 2; }
  cat "${parts[@]}" | python3 -c 'import sys, tarfile
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz") as packages:
    packages.extractall(sys.argv[1], filter="tar")' "$site"
  export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1
  python=python3
}

# MLX looks for CUDA's libraries and headers beside its own folder, in `nvidia`: where another folder of packages has
# them, they are linked there.
link_nvidia() {
  local beside elsewhere
  beside=$("$python" -c 'import importlib.util as u, os; print(os.path.dirname(list(u.find_spec("mlx").submodule_search_locations)[0]))')
  [[ -e $beside/nvidia ]] && return
  elsewhere=$("$python" -c 'import importlib.util as u
spec = u.find_spec("nvidia")
print(list(spec.submodule_search_locations)[0] if spec else "")')
  if [[ -n $elsewhere ]]; then ln -s "$elsewhere" "$beside/nvidia"; fi
}

if [[ -n $pack ]]; then
  pack
  exit
fi
if ((${#packed[@]})); then unpack; fi
if [[ -z $python ]]; then
  if [[ $group == cuda ]]; then
    export UV_PROJECT_ENVIRONMENT=.venv-cuda
    uv sync --quiet "${sync[@]}"
  else
    uv sync --quiet
  fi
  python=${UV_PROJECT_ENVIRONMENT:-.venv}/bin/python
fi
if [[ $group == cuda ]]; then link_nvidia; fi
exec "$python" -m benchmarks.gpu "${words[@]}"
