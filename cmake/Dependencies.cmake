# Libraries that Hekla stands on: from the system, or fetched at a pinned version where it lacks them.
include(FetchContent)
find_package(Threads REQUIRED)
add_library(hekla_dependencies INTERFACE)
target_link_libraries(hekla_dependencies INTERFACE Threads::Threads m ${CMAKE_DL_LIBS})

# Fetches `name` and adds its targets, static and relocatable (with SOURCE_SUBDIR none: its files alone).
macro(hekla_fetch name)
  message(STATUS "${name} is not installed: fetching it")
  set(BUILD_SHARED_LIBS OFF)
  set(CMAKE_POSITION_INDEPENDENT_CODE ON)
  set(CMAKE_POLICY_VERSION_MINIMUM 3.5) # for what newer CMake refuses in older projects
  FetchContent_Declare(${name} ${ARGN})
  FetchContent_MakeAvailable(${name})
endmacro()

find_library(CJSON_LIBRARY cjson)
find_path(CJSON_INCLUDE cjson/cJSON.h)
if(CJSON_LIBRARY AND CJSON_INCLUDE)
  target_link_libraries(hekla_dependencies INTERFACE ${CJSON_LIBRARY})
  target_include_directories(hekla_dependencies SYSTEM INTERFACE ${CJSON_INCLUDE})
else()
  set(ENABLE_CJSON_TEST OFF CACHE BOOL "" FORCE)
  set(ENABLE_CJSON_UNINSTALL OFF CACHE BOOL "" FORCE)
  hekla_fetch(cjson GIT_REPOSITORY https://github.com/DaveGamble/cJSON GIT_TAG v1.7.18)
  # as an installed one is included: <cjson/cJSON.h>
  configure_file(${cjson_SOURCE_DIR}/cJSON.h ${CMAKE_BINARY_DIR}/fetched/cjson/cJSON.h COPYONLY)
  target_link_libraries(hekla_dependencies INTERFACE cjson)
  target_include_directories(hekla_dependencies SYSTEM INTERFACE ${CMAKE_BINARY_DIR}/fetched)
endif()

# Vulkan is headers and source only: the loader is opened at run time.
if(HEKLA_VULKAN)
  find_path(VULKAN_HEADERS vulkan/vulkan_core.h)
  find_path(VOLK_INCLUDE volk.h)
  # volk must not be newer than the headers it is compiled with, so both come from one place
  if(NOT VULKAN_HEADERS OR NOT VOLK_INCLUDE)
    hekla_fetch(vulkan_headers GIT_REPOSITORY https://github.com/KhronosGroup/Vulkan-Headers
                GIT_TAG vulkan-sdk-1.3.280.0 GIT_SHALLOW ON SOURCE_SUBDIR none)
    hekla_fetch(volk GIT_REPOSITORY https://github.com/zeux/volk
                GIT_TAG vulkan-sdk-1.3.280.0 GIT_SHALLOW ON SOURCE_SUBDIR none)
    set(VULKAN_HEADERS ${vulkan_headers_SOURCE_DIR}/include)
    set(VOLK_INCLUDE ${volk_SOURCE_DIR})
  endif()
  target_include_directories(hekla_dependencies SYSTEM INTERFACE ${VULKAN_HEADERS} ${VOLK_INCLUDE})
  # shaderc is a header too: the library is opened at run time, where there is one
  find_path(SHADERC_INCLUDE shaderc/shaderc.h)
  if(SHADERC_INCLUDE)
    target_include_directories(hekla_dependencies SYSTEM INTERFACE ${SHADERC_INCLUDE})
  else()
    message(STATUS "shaderc/shaderc.h is not installed: elementwise ops are not fused on Vulkan")
  endif()
endif()
