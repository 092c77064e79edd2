# Compiler flags of every target: an interface library that each room links.

add_library(quire_options INTERFACE)
target_include_directories(quire_options INTERFACE ${PROJECT_SOURCE_DIR})
set(cxx_only $<COMPILE_LANGUAGE:C,CXX>)
target_compile_options(quire_options INTERFACE
  $<${cxx_only}:-Wall;-Wextra;-Wpedantic;-Wno-unused-parameter;-Wvla;-fno-math-errno;-fno-trapping-math;-fstack-protector-strong;-fstack-clash-protection;-fcf-protection>)
# Results must not depend on how a compiler contracts a*b+c: kernels that want an FMA say so.
target_compile_options(quire_options INTERFACE $<${cxx_only}:-ffp-contract=off>)
target_compile_definitions(quire_options INTERFACE QUIRE_VERSION="${PROJECT_VERSION}")
target_link_options(quire_options INTERFACE -Wl,-z,relro,-z,now -Wl,--as-needed)

if(QUIRE_SANITIZE)
  # Optimising what a sanitizer has instrumented doubles the time of a whole build and wins little in its run.
  target_compile_options(quire_options INTERFACE -fsanitize=${QUIRE_SANITIZE} -fno-omit-frame-pointer -O1 -g1)
  target_link_options(quire_options INTERFACE -fsanitize=${QUIRE_SANITIZE})
else()
  target_compile_options(quire_options INTERFACE $<$<AND:$<CONFIG:Release>,${cxx_only}>:-D_FORTIFY_SOURCE=2>)
endif()
