#!/bin/sh
# Makes a bundle, unpacks it elsewhere and uses it while the build tree and the
# sources cannot be seen: conformance, programs, a checkpoint with its restore, a
# program through the nested stack, and eval/gpu/run_all. Before that, what it would
# need of another machine: glibc's version, and no file outside of itself.
#
# usage: bundle_test.sh SOURCE BUILD
set -eu
source=$1
build=$2
if [ "$(id -u)" != 0 ]; then echo "SKIP: needs root"; exit 77; fi
for tool in patchelf zstd; do
  command -v $tool >/dev/null || { echo "SKIP: no $tool"; exit 77; }
done
dir=$(mktemp -d /tmp/pos-bundle.XXXXXX)
trap 'rm -rf "$dir"' EXIT
POS_BUILD=$build "$source/scripts/bundle" "$dir/bundle.tar.zst"
zstd -dqc "$dir/bundle.tar.zst" | tar -C "$dir" -xf -
# The newest glibc that anything asks for, and where libraries are looked for.
# CRIU brings a glibc of its own.
find "$dir/pos" -type f ! -path '*/criu/*' | while read -r file; do
  [ "$(head -c 4 "$file" | od -An -tx1 | tr -d ' ')" = 7f454c46 ] || continue
  objdump -p "$file" >"$dir/elf"
  newest=$(grep -o 'GLIBC_2[0-9.]*' "$dir/elf" | sort -uV | tail -n 1)
  [ "$(printf '%s\nGLIBC_2.36\n' "$newest" | sort -V | tail -n 1)" = GLIBC_2.36 ] ||
    { echo "$file needs $newest"; exit 1; }
  awk '$1 == "RUNPATH" || $1 == "RPATH" { print $2 }' "$dir/elf" | tr : '\n' |
    while read -r where; do
      case $where in
        \$ORIGIN*) ;;
        *) echo "$file looks for libraries in $where"; exit 1 ;;
      esac
    done
  # Programs of nvcc may need the toolkit's runtime and the machine's libstdc++.
  case $file in */programs/*) continue ;; esac
  awk '$1 == "NEEDED" { print $2 }' "$dir/elf" | while read -r name; do
    case $name in
      libc.so.6 | libm.so.6 | ld-linux-x86-64.so.2 | libdl.so.2) ;;
      libpthread.so.0 | librt.so.1 | libresolv.so.2) ;;
      *) [ -e "$dir/pos/lib/private/$name" ] || [ -e "$dir/pos/lib/pos/$name" ] ||
        { echo "$file needs $name, which is not in the bundle"; exit 1; } ;;
    esac
  done
done || exit 1
cat >"$dir/inside.sh" <<'END'
set -eu
cd "$1/pos"
mount -t tmpfs none "$2"
mount -t tmpfs none "$3" 2>/dev/null || true
[ ! -e "$2/scripts" ] && [ ! -e "$3/bin" ] || { echo "still to be seen"; exit 1; }
unset LD_LIBRARY_PATH
for test in device_conformance_sim_test device_conformance_nested_test; do
  test-bin/$test >"$1/$test.log" 2>&1 || { tail -n 30 "$1/$test.log"; exit 1; }
done
export POS_BUILD="$1/pos"
status=0
python3 tests/cr/programs_test.py restore_vector_add || status=$?
# The bundle brings CRIU: that it is missing is a failure here.
[ $status = 0 ] || { echo "restore: exit status $status"; exit 1; }
scripts/nested -- programs/vector_add 2 | grep -q PASS
unset POS_BUILD # run_all finds the bundle that it lies in
eval/gpu/run_all --quick --kind sim --out "$1/results" check programs overhead ||
  { cat "$1/results/result.md"; exit 1; }
grep -q "pos_commit: $(cat COMMIT)" "$1/results/result.md"
END
unshare --mount --propagation private sh "$dir/inside.sh" "$dir" "$source" \
  "$build"
echo "the bundle works"
