# Install rules: headers, libraries, the program, a CMake package and a pkg-config file.
include(CMakePackageConfigHelpers)

install(DIRECTORY include/hekla TYPE INCLUDE FILES_MATCHING PATTERN "*.h")
install(TARGETS hekla hekla_static EXPORT hekla)
if(HEKLA_PROGRAM)
  install(TARGETS hekla_program)
endif()
install(FILES LICENSE TYPE DOC)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/hekla)
configure_package_config_file(cmake/hekla-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/hekla-config.cmake
                              INSTALL_DESTINATION ${package_folder} PATH_VARS CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/hekla-config-version.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT hekla NAMESPACE hekla:: DESTINATION ${package_folder} FILE hekla-targets.cmake)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/hekla-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/hekla-config-version.cmake
        DESTINATION ${package_folder})

# relative to the file itself, so that the installed tree can be moved
file(RELATIVE_PATH pc_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
cmake_path(APPEND pc_libdir "\${prefix}" ${CMAKE_INSTALL_LIBDIR})
cmake_path(APPEND pc_includedir "\${prefix}" ${CMAKE_INSTALL_INCLUDEDIR})
configure_file(cmake/hekla.pc.in hekla.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/hekla.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
