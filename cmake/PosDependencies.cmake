# Third-party code, all of it Debian packages. scripts/setup installs them.
find_package(Threads REQUIRED)
find_package(GTest REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(LZ4 REQUIRED IMPORTED_TARGET liblz4)
pkg_check_modules(URING REQUIRED IMPORTED_TARGET liburing)
find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)
find_package(Protobuf REQUIRED)
find_package(benchmark REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(OpenSSL 3 REQUIRED)
if(NOT POS_CORE_ONLY)
  find_package(gRPC CONFIG REQUIRED)
  find_package(CLI11 REQUIRED)
endif()

# Headers of the CUDA toolkit (13.x): CUDA_HOME, then nvcc's neighbour, then
# the wheels that scripts/setup fetches where there is no toolkit.
set(_cuda_wheels ${CMAKE_SOURCE_DIR}/build/cuda/nvidia/cu13)
find_program(POS_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin
             PATHS ${_cuda_wheels}/bin)
set(_cuda_hints $ENV{CUDA_HOME}/include /usr/local/cuda/include
                ${_cuda_wheels}/include)
if(POS_NVCC)
  get_filename_component(_nvcc_real ${POS_NVCC} REALPATH)
  get_filename_component(_nvcc_bin ${_nvcc_real} DIRECTORY)
  list(PREPEND _cuda_hints ${_nvcc_bin}/../include)
endif()
find_path(POS_CUDA_INCLUDE cuda.h HINTS ${_cuda_hints} REQUIRED)
add_library(pos_cuda_headers INTERFACE)
target_include_directories(pos_cuda_headers SYSTEM INTERFACE ${POS_CUDA_INCLUDE})
