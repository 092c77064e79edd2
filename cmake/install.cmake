# `cmake --install` and `cpack` give one relocatable tree: bin/, lib/ with the shared libraries that a bare Linux lacks, and the
# bundled model. The programs find lib/ by DT_RPATH $ORIGIN/../lib, which, unlike RUNPATH, also holds for the libraries' own needs.

foreach(program quired quire)
  set_target_properties(${program} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
  target_link_options(${program} PRIVATE -Wl,--disable-new-dtags)
endforeach()

install(TARGETS quired quire RUNTIME_DEPENDENCY_SET quire_libraries RUNTIME DESTINATION bin COMPONENT programs)
install(RUNTIME_DEPENDENCY_SET quire_libraries
  # The C library and its loader belong to the system: everything else travels along.
  PRE_EXCLUDE_REGEXES "^ld-linux" "^linux-vdso"
  POST_EXCLUDE_REGEXES "/(ld-linux[^/]*|libc|libm|libdl|librt|libpthread|libresolv|libanl)\\.so\\.[0-9]+$"
  LIBRARY DESTINATION lib COMPONENT libraries)
install(DIRECTORY deploy/models/tales-5m DESTINATION share/quire/models COMPONENT programs)
install(FILES LICENSE README.md DESTINATION share/doc/quire COMPONENT programs)

set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_NAME quire)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_FILE_NAME "quire-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR}")
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL programs libraries)
set(CPACK_ARCHIVE_COMPONENT_INSTALL OFF)
include(CPack)
