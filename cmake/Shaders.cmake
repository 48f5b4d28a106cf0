# Shaders to SPIR-V, and one C file that holds them all as the sorted table of src/vulkan/shaders.h.
#
# Each shaders/NAME.comp gives the module NAME. A line of it such as
#     //@ variant tiled: -DTILE=8 -DVECTOR
# gives the module NAME_tiled besides, compiled with those definitions.

# Adds one module to the caller's lists `modules` (name|file) and `outputs`.
macro(hekla_add_module name source)
  set(code ${folder}/${name}.inc)
  add_custom_command(
    OUTPUT ${code}
    COMMAND ${GLSLC} --target-env=vulkan1.3 -O -I ${CMAKE_CURRENT_SOURCE_DIR}/shaders ${ARGN} -MD -MF ${code}.d -mfmt=c
            -o ${code} ${source}
    DEPENDS ${source}
    DEPFILE ${code}.d
    COMMENT "Shader ${name}"
    VERBATIM)
  list(APPEND modules ${name})
  list(APPEND outputs ${code})
endmacro()

# Sets OUT_VAR to the sources that hold the shaders.
function(hekla_compile_shaders OUT_VAR)
  find_program(GLSLC glslc)
  if(NOT GLSLC)
    message(FATAL_ERROR "glslc not found. It compiles the shaders: install it (Debian, Ubuntu: apt install glslc), "
                        "or build for the CPU alone with -DHEKLA_VULKAN=OFF.")
  endif()
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/shaders)
  file(MAKE_DIRECTORY ${folder})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/shaders/*.comp)
  set(modules "")
  set(outputs "")
  foreach(source ${sources})
    # A new variant line must configure again.
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    cmake_path(GET source STEM name)
    hekla_add_module(${name} ${source})
    file(STRINGS ${source} variants REGEX "^//@ variant ")
    foreach(variant ${variants})
      if(NOT variant MATCHES "^//@ variant ([A-Za-z0-9_]+): *(.*)$")
        message(FATAL_ERROR "${source}: expected `//@ variant NAME: -DX=Y ...`, found: ${variant}")
      endif()
      set(suffix ${CMAKE_MATCH_1})
      separate_arguments(definitions UNIX_COMMAND "${CMAKE_MATCH_2}")
      hekla_add_module(${name}_${suffix} ${source} ${definitions})
    endforeach()
  endforeach()

  list(SORT modules COMPARE STRING) # the order of strcmp, for the binary search
  set(arrays "")
  set(rows "")
  set(count 0)
  foreach(name ${modules})
    string(APPEND arrays "static const uint32_t ${name}_words[] =\n#include \"${name}.inc\"\n;\n")
    string(APPEND rows "    {\"${name}\", ${name}_words, sizeof ${name}_words},\n")
    math(EXPR count "${count} + 1")
  endforeach()
  set(table ${folder}/shader_table.c)
  file(CONFIGURE OUTPUT ${table} @ONLY CONTENT [[
/* Made by cmake/Shaders.cmake. */
#include "vulkan/shaders.h"

@arrays@
const struct vk_shader vk_shaders[] = {
@rows@    {0},
};
const int vk_shaders_count = @count@;
]])
  set_source_files_properties(${table} PROPERTIES OBJECT_DEPENDS "${outputs}" INCLUDE_DIRECTORIES ${folder})
  set_source_files_properties(${outputs} PROPERTIES HEADER_FILE_ONLY ON)
  set(${OUT_VAR} ${table} ${outputs} PARENT_SCOPE)
endfunction()
