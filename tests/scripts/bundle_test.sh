#!/bin/sh
# Makes a bundle, unpacks it elsewhere and uses it while the build tree and the
# sources cannot be seen: conformance, programs, a checkpoint with its restore, a
# program through the nested stack, and eval/gpu/run_all.
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
