# pos_planted_fuzzer(NAME SRCS ... DEPS ... CORPUS dir FILE f FROM text TO text)
# A fuzzer of the program with one line of FILE changed: FROM, which must occur
# once, becomes TO. The test NAME passes when libFuzzer finds that within 20 s,
# starting from the corpus. The changed copy is linked instead of the library's
# object; nothing else sees it.
function(pos_planted_fuzzer name)
  cmake_parse_arguments(A "" "CORPUS;FILE;FROM;TO" "SRCS;DEPS" ${ARGN})
  if(NOT POS_FUZZ)
    return()
  endif()
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
                                         ${CMAKE_SOURCE_DIR}/${A_FILE})
  file(READ ${CMAKE_SOURCE_DIR}/${A_FILE} _text)
  string(REPLACE "${A_FROM}" "" _without "${_text}")
  string(LENGTH "${_text}" _all)
  string(LENGTH "${_without}" _rest)
  string(LENGTH "${A_FROM}" _once)
  math(EXPR _gone "${_all} - ${_rest}")
  if(NOT _gone EQUAL _once)
    message(FATAL_ERROR "${name}: '${A_FROM}' is not once in ${A_FILE}")
  endif()
  string(REPLACE "${A_FROM}" "${A_TO}" _text "${_text}")
  set(_copy ${CMAKE_CURRENT_BINARY_DIR}/${name}/changed.cc)
  file(CONFIGURE OUTPUT ${_copy} CONTENT "@_text@" @ONLY)

  add_executable(${name} ${A_SRCS} ${_copy})
  add_dependencies(pos_tests ${name})
  target_link_libraries(${name} PRIVATE pos_options ${A_DEPS})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
  set(_directory ${CMAKE_BINARY_DIR}/fuzz)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY
                                           ${_directory})
  # New inputs go to the first corpus.
  file(MAKE_DIRECTORY ${_directory}/${name}.corpus)
  # libFuzzer says this when, and only when, it has found an input that fails.
  add_test(NAME ${name}${POS_TEST_SUFFIX}
           COMMAND ${name} -max_total_time=20 -timeout=10
                   -artifact_prefix=${_directory}/${name}-
                   ${_directory}/${name}.corpus
                   ${CMAKE_CURRENT_SOURCE_DIR}/${A_CORPUS})
  set_tests_properties(
    ${name}${POS_TEST_SUFFIX}
    PROPERTIES TIMEOUT 60 LABELS fuzz PASS_REGULAR_EXPRESSION
                                      "Test unit written to")
endfunction()
