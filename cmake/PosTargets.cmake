# pos_library(NAME SRCS a.cc ... DEPS x y ...)
# A static library. DEPS are public link dependencies: they are the arrows of
# the architecture, and tests/lint/layering_test.py checks #includes against
# them.
function(pos_library name)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  if(A_SRCS)
    add_library(${name} STATIC ${A_SRCS})
    target_link_libraries(${name} PUBLIC pos_options ${A_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE pos_options ${A_DEPS})
  endif()
endfunction()

# pos_executable(NAME SRCS ... DEPS ...)
function(pos_executable name)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE pos_options ${A_DEPS})
endfunction()

# pos_takes_test(VARIABLE LABEL...): is a test with these labels wanted here?
function(pos_takes_test variable)
  set(${variable} TRUE PARENT_SCOPE)
  if(NOT POS_TEST_LABELS)
    return()
  endif()
  foreach(label ${ARGN})
    if(label IN_LIST POS_TEST_LABELS)
      return()
    endif()
  endforeach()
  set(${variable} FALSE PARENT_SCOPE)
endfunction()

# pos_test(NAME SRCS ... DEPS ... [LABELS ...] [TIMEOUT s])
# One GoogleTest binary, one ctest entry. LABELS say which sanitizer runs take
# it up ("race": ThreadSanitizer, "parse": ASan/UBSan) and whether it is long.
function(pos_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE pos_options ${A_DEPS} GTest::gmock
                                        GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY
                                           ${CMAKE_BINARY_DIR}/test-bin)
  # What is tested stays optimized in the sanitized trees; a test itself takes
  # half as long to compile without.
  set_target_properties(${name} PROPERTIES POS_PLAIN ON)
  pos_takes_test(_wanted unit ${A_LABELS})
  if(NOT _wanted)
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
    return()
  endif()
  add_dependencies(pos_tests ${name})
  add_test(NAME ${name}${POS_TEST_SUFFIX} COMMAND ${name})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 60)
  endif()
  set_tests_properties(${name}${POS_TEST_SUFFIX}
                       PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "unit;${A_LABELS}")
endfunction()

# pos_fuzzer(NAME SRCS ... DEPS ... CORPUS dir [DICT file])
# A libFuzzer program and the test NAME_run, which lets it search for
# POS_FUZZ_SECONDS from the corpus. What it finds is kept below fuzz/.
# NAME_planted is the same program with a bug (SRCS say where: planted.h), and
# its test that the search finds it within 90 s, and ends: a fuzzer that cannot is no
# proof of anything.
set(POS_FUZZ_SECONDS 20 CACHE STRING "How long a test runs a fuzzer")
function(pos_fuzzer name)
  cmake_parse_arguments(A "" "CORPUS;DICT" "SRCS;DEPS" ${ARGN})
  if(NOT POS_FUZZ)
    return()
  endif()
  set(_options -rss_limit_mb=3000 -timeout=10)
  if(A_DICT)
    list(APPEND _options -dict=${CMAKE_CURRENT_SOURCE_DIR}/${A_DICT})
  endif()
  set(_corpus ${CMAKE_CURRENT_SOURCE_DIR}/${A_CORPUS})
  file(GLOB _seeds CONFIGURE_DEPENDS ${_corpus}/*)
  foreach(_program ${name} ${name}_planted)
    add_executable(${_program} ${A_SRCS})
    target_link_libraries(${_program} PRIVATE pos_options ${A_DEPS})
    target_link_options(${_program} PRIVATE -fsanitize=fuzzer)
    set_target_properties(${_program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY
                                                 ${CMAKE_BINARY_DIR}/fuzz)
    add_dependencies(pos_tests ${_program})
  endforeach()
  target_compile_definitions(${name}_planted PRIVATE POS_FUZZ_PLANTED=1)
  set(_found ${CMAKE_BINARY_DIR}/fuzz/${name}.corpus)
  file(MAKE_DIRECTORY ${_found})
  add_test(NAME ${name}_run${POS_TEST_SUFFIX}
           COMMAND ${name} -max_total_time=${POS_FUZZ_SECONDS}
                   ${_options} -print_final_stats=1
                   -artifact_prefix=${CMAKE_BINARY_DIR}/fuzz/${name}- ${_found}
                   ${_corpus})
  math(EXPR _timeout "${POS_FUZZ_SECONDS} * 2 + 60")
  set_tests_properties(${name}_run${POS_TEST_SUFFIX}
                       PROPERTIES TIMEOUT ${_timeout} LABELS fuzz)
  # Seeds as a list, since libFuzzer writes to a directory that it is given.
  string(REPLACE ";" "," _seeds "${_seeds}")
  file(WRITE ${CMAKE_BINARY_DIR}/fuzz/${name}.seeds "${_seeds}")
  add_test(NAME ${name}_planted_run${POS_TEST_SUFFIX}
           COMMAND ${name}_planted -max_total_time=90 -seed=1 ${_options}
                   -exact_artifact_path=/dev/null
                   -seed_inputs=@${CMAKE_BINARY_DIR}/fuzz/${name}.seeds)
  set_tests_properties(
    ${name}_planted_run${POS_TEST_SUFFIX}
    PROPERTIES TIMEOUT 130 LABELS fuzz PASS_REGULAR_EXPRESSION
               "the planted bug")
endfunction()

# pos_proto_library(NAME SRCS a.proto ... [GRPC])
# Message classes, included as "dir/a.pb.h"; for protobuf's lite run-time, or
# with GRPC for the full one with service stubs. They are generated code:
# outside pos_options' warnings.
function(pos_proto_library name)
  cmake_parse_arguments(A "GRPC" "" "SRCS" ${ARGN})
  set(_root ${CMAKE_BINARY_DIR}/generated)
  set(_generated)
  foreach(_proto ${A_SRCS})
    get_filename_component(_source ${_proto} ABSOLUTE)
    file(RELATIVE_PATH _path ${CMAKE_SOURCE_DIR} ${_source})
    string(REGEX REPLACE "\\.proto$" "" _stem ${_root}/${_path})
    set(_outputs ${_stem}.pb.cc ${_stem}.pb.h)
    set(_grpc)
    if(A_GRPC)
      list(APPEND _outputs ${_stem}.grpc.pb.cc ${_stem}.grpc.pb.h)
      set(_grpc --grpc_out=${_root}
          --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>)
    endif()
    add_custom_command(
      OUTPUT ${_outputs}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${_root}
      COMMAND protobuf::protoc --cpp_out=${_root} ${_grpc} -I${CMAKE_SOURCE_DIR}
              ${_source}
      DEPENDS ${_source} protobuf::protoc
      VERBATIM)
    list(APPEND _generated ${_outputs})
  endforeach()
  add_library(${name} STATIC ${_generated})
  target_include_directories(${name} SYSTEM PUBLIC ${_root})
  if(A_GRPC)
    target_link_libraries(${name} PUBLIC gRPC::grpc++ protobuf::libprotobuf)
  else()
    target_link_libraries(${name} PUBLIC protobuf::libprotobuf-lite)
  endif()
  if(POS_SANITIZE)
    target_compile_options(${name} PRIVATE -fsanitize=${POS_SANITIZE})
  endif()
endfunction()
