# Flags that every target of ours is compiled with.
add_library(hekla_flags INTERFACE)
target_compile_features(hekla_flags INTERFACE c_std_11)
target_compile_definitions(hekla_flags INTERFACE _GNU_SOURCE)
target_compile_options(hekla_flags INTERFACE -Wall -Wextra -Wshadow -Wvla -Wconversion -fno-math-errno
  $<$<BOOL:${HEKLA_WERROR}>:-Werror>)
if(HEKLA_SANITIZE)
  target_compile_options(hekla_flags INTERFACE "$<$<NOT:$<BOOL:$<TARGET_PROPERTY:HEKLA_UNCHECKED>>>:\
-fsanitize=${HEKLA_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
  target_link_options(hekla_flags INTERFACE -fsanitize=${HEKLA_SANITIZE})
endif()

# What an object library that becomes a part of libhekla has in common.
function(hekla_library_objects target)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(${target} PRIVATE hekla_flags hekla_dependencies)
endfunction()
