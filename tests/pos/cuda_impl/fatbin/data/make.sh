#!/bin/sh
# Regenerates the samples; needs nvcc 13.0.
set -eu
cd "$(dirname "$0")"
one() { out=$1; shift; nvcc -O2 "$@" -fatbin sample.cu -o "$out.fatbin"; }
one zstd -arch=sm_90 -Xfatbin -compress-all
one lz4 -arch=sm_90 -Xfatbin -compress-all -compress-mode=speed
one plain -arch=sm_75 -compress-mode=none
one arch_specific -arch=sm_90a -Xfatbin -compress-all
one several -Xfatbin -compress-all \
  -gencode arch=compute_75,code=sm_75 -gencode arch=compute_75,code=compute_75 \
  -gencode arch=compute_90,code=sm_90 -gencode arch=compute_90,code=compute_90 \
  -gencode arch=compute_100,code=compute_100
one newer -Xfatbin -compress-all -gencode arch=compute_100,code=compute_100
one relocatable -arch=sm_90 -rdc=true
one lto -arch=sm_90 -rdc=true -dlto
nvcc -O2 -arch=sm_90 -cubin sample.cu -o sm90.cubin
nvcc -O2 -arch=sm_75 -cubin sample.cu -o sm75.cubin
nvcc -O2 -arch=sm_90 -rdc=true -cubin sample.cu -o sm90_rdc.cubin
