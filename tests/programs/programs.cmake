# The CUDA programs, one row each. A row is all that a new one needs: the tests
# in tests/cr take it up from here.

# What kinds of calls there are.
pos_program(device_assert)
pos_program(device_output)
pos_program(driver_api FLAGS -L${_cuda_lib}/stubs -lcuda)
pos_program(endless FLAGS -L${_cuda_lib}/stubs -lcuda ALONE)
pos_program(errors)
pos_program(fork_child)
pos_program(fork_late)
pos_program(grid_sync)
pos_program(heat)
pos_program(histogram)
pos_program(host_threads)
pos_program(large_buffers)
pos_program(launch_first)
pos_program(limits)
pos_program(linked_list)
pos_program(long_kernel)
pos_program(malloc_async)
pos_program(managed)
pos_program(matmul)
pos_program(open_files)
pos_program(pinned)
pos_program(queued)
pos_program(reduce_shuffle)
pos_program(reset_reuse)
pos_program(resident)
pos_program(scan)
pos_program(spawned)
pos_program(spin_release)
pos_program(stencil)
pos_program(streams_events)
pos_program(struct_pointers)
pos_program(symbols)
pos_program(thread_streams FLAGS -default-stream per-thread)
pos_program(two_modules SOURCES two_modules.cu two_modules_b.cu)
pos_program(vector_add)
pos_program(virtual_memory FLAGS -L${_cuda_lib}/stubs -lcuda)
pos_program(workers)

# What programs compute.
pos_program(aes128)
pos_program(bfs)
pos_program(bitonic_sort)
pos_program(cg_groups)
pos_program(conjugate_gradient)
pos_program(device_heap)
pos_program(fast_math FLAGS --use_fast_math)
pos_program(fft)
pos_program(function_pointers)
pos_program(gpt HEADERS gpt_model.h FLAGS --extended-lambda)
pos_program(hash_table)
pos_program(image_filters)
pos_program(life)
pos_program(lu_factor)
pos_program(mandelbrot)
pos_program(monte_carlo)
pos_program(nbody)
pos_program(nbody_double SOURCES nbody.cu FLAGS -DREAL=double)
pos_program(packed_bytes)
pos_program(radix_sort)
pos_program(recursion)
pos_program(sha256)
pos_program(spmv_csr)
pos_program(wide_math)

# How programs are built: for one architecture, for debugging, in parts that are
# linked, or while the program runs.
foreach(sm 80 90 100)  # PTX alone; for 100 a newer device is needed
  pos_program(cg_groups_sm${sm} SOURCES cg_groups.cu
              FLAGS -gencode arch=compute_${sm},code=compute_${sm})
endforeach()
pos_program(linked SOURCES linked.cu linked_b.cu HEADERS linked.h
            FLAGS -rdc=true)
pos_program(linked_ptx SOURCES linked.cu linked_b.cu HEADERS linked.h
            FLAGS -rdc=true -gencode arch=compute_80,code=compute_80)
pos_program(radix_sort_debug SOURCES radix_sort.cu FLAGS -G)
if(EXISTS ${_cuda_lib}/libnvrtc.so)
  pos_program(nvrtc_kernels FLAGS -L${_cuda_lib} -lnvrtc -L${_cuda_lib}/stubs
                                  -lcuda)
else()
  message(STATUS "no libnvrtc.so: nvrtc_kernels is not built")
endif()

# Arithmetic of narrow types, matrices, asynchronous copies.
set(_ptx_80 -gencode arch=compute_80,code=compute_80)
pos_program(async_copies FLAGS ${_ptx_80})
pos_program(flash_attention)
pos_program(half_arithmetic FLAGS ${_ptx_80})
pos_program(half_arithmetic_sm90 SOURCES half_arithmetic.cu
            FLAGS -gencode arch=compute_90,code=compute_90)
pos_program(wmma_gemm FLAGS ${_ptx_80})

# Libraries of templates. PTX alone: ptxas would take most of their build.
set(_ptx_90 -gencode arch=compute_90,code=compute_90)
pos_program(cub_block FLAGS ${_ptx_90})
pos_program(cub_device FLAGS ${_ptx_90})
pos_program(thrust_algorithms FLAGS ${_ptx_90})

# The shared runtime (libcudart.so is then needed at run time).
foreach(program streams_events symbols vector_add)
  pos_program(${program}_shared SOURCES ${program}.cu FLAGS -cudart shared)
endforeach()
