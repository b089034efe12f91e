# pos_options: the warnings, sanitizers and include root that every target of
# the project uses.
add_library(pos_options INTERFACE)
target_include_directories(pos_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(
  pos_options
  INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wold-style-cast
            -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-align -Wformat=2
            -Wimplicit-fallthrough -Wundef)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(
    pos_options INTERFACE -Wduplicated-cond -Wlogical-op
                          $<$<COMPILE_LANGUAGE:CXX>:-Wsuggest-override>)
elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(pos_options INTERFACE -Wthread-safety -Wextra-semi)
endif()
if(POS_WERROR)
  target_compile_options(pos_options INTERFACE -Werror)
endif()
if(POS_SANITIZE)
  target_compile_options(
    pos_options INTERFACE -fsanitize=${POS_SANITIZE}
                          -fno-sanitize-recover=all -fno-omit-frame-pointer
                          $<IF:$<BOOL:$<TARGET_PROPERTY:POS_PLAIN>>,-O0,-O1>
                          # Of code that sanitizers add.
                          $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(pos_options INTERFACE -fsanitize=${POS_SANITIZE})
endif()
if(POS_FUZZ)
  # Counters that show a fuzzer where its inputs lead, in all that it may reach.
  target_compile_options(
    pos_options
    INTERFACE $<$<NOT:$<BOOL:$<TARGET_PROPERTY:POS_PLAIN>>>:-fsanitize=fuzzer-no-link>)
  target_link_options(pos_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

find_program(POS_CCACHE ccache)
if(POS_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${POS_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${POS_CCACHE})
endif()
