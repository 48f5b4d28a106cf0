# Shaders to SPIR-V, and one C file that holds them all as the sorted table of src/vulkan/shaders.h.
#
# Each shaders/NAME.comp gives the module NAME. A line of it such as
#     //@ variant tiled: -DTILE=8 -DVECTOR
# gives the module NAME_tiled besides, compiled with those definitions. A variant may need extensions of GLSL, and so may
# all of a shader:
#     //@ variant cooperative requires GL_KHR_cooperative_matrix: -DCOOPERATIVE
#     //@ requires GL_KHR_cooperative_matrix
# What this machine's glslc rejects is left out, with a message; the library finds those modules missing.
#
# HEKLA_SPIRV=FOLDER takes the modules from a folder that the target hekla_spirv made elsewhere (build/spirv), of the same
# shaders: no glslc is needed then.

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

# Sets OUT_VAR to those of the space-separated extensions that glslc rejects. Each is asked about once a configure: the
# answer may change with glslc.
function(hekla_rejected_extensions OUT_VAR extensions)
  separate_arguments(extensions UNIX_COMMAND "${extensions}")
  set(rejected "")
  foreach(extension ${extensions})
    get_property(status GLOBAL PROPERTY hekla_probe_${extension})
    if("${status}" STREQUAL "")
      set(probe ${folder}/probe_${extension})
      file(WRITE ${probe}.comp "#version 460\n#extension ${extension} : require\nvoid main() {}\n")
      execute_process(COMMAND ${GLSLC} --target-env=vulkan1.3 -o ${probe}.spv ${probe}.comp
                      RESULT_VARIABLE status OUTPUT_QUIET ERROR_QUIET)
      set_property(GLOBAL PROPERTY hekla_probe_${extension} ${status})
    endif()
    if(NOT status EQUAL 0)
      list(APPEND rejected ${extension})
    endif()
  endforeach()
  set(${OUT_VAR} ${rejected} PARENT_SCOPE)
endfunction()

# Adds the module and each variant of one shader that glslc can compile.
macro(hekla_add_shader source)
  cmake_path(GET source STEM name)
  file(STRINGS ${source} shader_requires REGEX "^//@ requires ")
  string(REGEX REPLACE "//@ requires " "" shader_requires "${shader_requires}")
  set(lines ": ") # of the module without a variant
  file(STRINGS ${source} variants REGEX "^//@ variant ")
  list(APPEND lines ${variants})
  foreach(line ${lines})
    if(NOT line MATCHES "^(//@ variant ([A-Za-z0-9_]+)( requires ([A-Za-z0-9_ ]+))?)?: *(.*)$")
      message(FATAL_ERROR "${source}: expected `//@ variant NAME [requires EXTENSION...]: -DX=Y ...`, found: ${line}")
    endif()
    set(module ${name})
    if(CMAKE_MATCH_2)
      set(module ${name}_${CMAKE_MATCH_2})
    endif()
    separate_arguments(definitions UNIX_COMMAND "${CMAKE_MATCH_5}")
    hekla_rejected_extensions(rejected "${shader_requires} ${CMAKE_MATCH_4}")
    if(rejected)
      list(JOIN rejected ", " rejected)
      message(STATUS "Shader ${module} is left out: ${GLSLC} does not know ${rejected}")
    else()
      hekla_add_module(${module} ${source} ${definitions})
    endif()
  endforeach()
endmacro()

# Sets OUT_VAR to the source that holds the text of each shaders/NAME.glsl, and of the kernels of matmul and of reductions, for
# shaders that are written at run time.
function(hekla_embed_glsl OUT_VAR)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/shaders/*.glsl)
  foreach(name matmul matmul_few matmul_direct matmul_cooperative matmul_parts reduce_rows reduce_columns)
    list(APPEND sources ${CMAKE_CURRENT_SOURCE_DIR}/shaders/${name}.comp)
  endforeach()
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${sources})
  set(arrays "")
  set(rows "")
  foreach(source ${sources})
    cmake_path(GET source FILENAME name)
    string(REPLACE "." "_" array ${name})
    file(READ ${source} text HEX)
    string(REGEX REPLACE "(..)" "0x\\1," text "${text}")
    string(APPEND arrays "static const char ${array}[] = {${text}0};\n")
    string(APPEND rows "    {\"${name}\", ${array}},\n")
  endforeach()
  list(LENGTH sources count)
  set(table ${CMAKE_CURRENT_BINARY_DIR}/shaders/glsl_files.c)
  file(CONFIGURE OUTPUT ${table} @ONLY CONTENT [[
/* Made by cmake/Shaders.cmake. */
#include "vulkan/shaders.h"

@arrays@
const struct vk_glsl_file vk_glsl_files[] = {
@rows@    {0},
};
const int vk_glsl_files_count = @count@;
_Static_assert(@count@ <= 64, "one bit of a word for each");
]])
  set(${OUT_VAR} ${table} PARENT_SCOPE)
endfunction()

# Sets OUT_VAR to a hash of all that the shaders consist of: SPIR-V that travels says of which ones it is.
function(hekla_hash_shaders OUT_VAR)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/shaders/*)
  list(SORT sources COMPARE STRING)
  set(hashes "")
  foreach(source ${sources})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    file(SHA256 ${source} hash)
    cmake_path(GET source FILENAME name)
    string(APPEND hashes "${name} ${hash}\n")
  endforeach()
  string(SHA256 hash "${hashes}")
  set(${OUT_VAR} ${hash} PARENT_SCOPE)
endfunction()

# Adds what was compiled elsewhere to the caller's lists.
macro(hekla_take_modules)
  set(made_of "")
  if(EXISTS ${HEKLA_SPIRV}/shaders.sha256)
    file(READ ${HEKLA_SPIRV}/shaders.sha256 made_of)
  endif()
  hekla_hash_shaders(hash)
  if(NOT made_of STREQUAL hash)
    message(FATAL_ERROR "HEKLA_SPIRV: ${HEKLA_SPIRV} holds no SPIR-V of these shaders. Make it anew where there is glslc: "
                        "build the target hekla_spirv, and take the folder spirv of that build.")
  endif()
  file(GLOB outputs ${HEKLA_SPIRV}/*.inc)
  foreach(code ${outputs})
    cmake_path(GET code STEM name)
    list(APPEND modules ${name})
  endforeach()
  set(folder ${HEKLA_SPIRV})
endmacro()

macro(hekla_make_modules)
  find_program(GLSLC glslc)
  if(NOT GLSLC)
    message(FATAL_ERROR "glslc not found. It compiles the shaders: install it (Debian, Ubuntu: apt install glslc), "
                        "bring them compiled (-DHEKLA_SPIRV=FOLDER), or build for the CPU alone (-DHEKLA_VULKAN=OFF).")
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/shaders/*.comp)
  hekla_hash_shaders(hash) # which makes new variant lines configure again
  foreach(source ${sources})
    hekla_add_shader(${source})
  endforeach()
  file(WRITE ${folder}/shaders.sha256 ${hash})
  set(spirv ${CMAKE_CURRENT_BINARY_DIR}/spirv)
  add_custom_target(hekla_spirv
    COMMAND ${CMAKE_COMMAND} -E rm -rf ${spirv}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${spirv}
    COMMAND ${CMAKE_COMMAND} -E copy ${outputs} ${folder}/shaders.sha256 ${spirv}
    DEPENDS ${outputs}
    VERBATIM)
endmacro()

# Sets OUT_VAR to the sources that hold the shaders.
function(hekla_compile_shaders OUT_VAR)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/shaders)
  set(table ${folder}/shader_table.c)
  file(MAKE_DIRECTORY ${folder})
  set(modules "")
  set(outputs "")
  if(HEKLA_SPIRV)
    hekla_take_modules()
  else()
    hekla_make_modules()
  endif()

  list(SORT modules COMPARE STRING) # the order of strcmp, for the binary search
  set(arrays "")
  set(rows "")
  set(count 0)
  foreach(name ${modules})
    string(APPEND arrays "static const uint32_t ${name}_words[] =\n#include \"${name}.inc\"\n;\n")
    string(APPEND rows "    {\"${name}\", ${name}_words, sizeof ${name}_words},\n")
    math(EXPR count "${count} + 1")
  endforeach()
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
