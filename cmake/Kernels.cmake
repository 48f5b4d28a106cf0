# CPU kernels: op files are compiled once for their rows (as all sources are) and once per instruction set for their
# kernels, with HK_ISA_NAME telling which. The device picks one set at run time.
#
# The sets with products of bf16 differ from avx512 in those, and in those of i8: they have the sources of
# hekla_bf16_sources, and the other ops have avx512's kernels.
set(hekla_isas base)
set(hekla_isa_flags_base "")
set(hekla_bf16_sources fused.c fused_matmul.c gemm.c gemm_bf16.c gemm_i8.c matmul.c)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  list(APPEND hekla_isas avx2 avx512 avx512bf16 amx)
  set(hekla_isa_flags_avx2 -mavx2 -mfma -mf16c -mtune=haswell)
  set(hekla_isa_flags_avx512 -mavx512f -mavx512vl -mavx512bw -mavx512dq -mavx2 -mfma -mf16c
      -mprefer-vector-width=512 -mtune=skylake-avx512)
  set(hekla_isa_flags_avx512bf16 ${hekla_isa_flags_avx512} -mavx512bf16 -mavx512vnni)
  set(hekla_isa_flags_amx ${hekla_isa_flags_avx512bf16} -mamx-tile -mamx-bf16)
endif()

# Sets OUT_VAR to the objects of all sets.
function(hekla_add_kernels OUT_VAR)
  file(GLOB all_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/op/*.c)
  set(bf16_sources ${hekla_bf16_sources})
  list(TRANSFORM bf16_sources PREPEND ${PROJECT_SOURCE_DIR}/src/op/)
  set(objects "")
  foreach(isa ${hekla_isas})
    set(sources ${all_sources})
    if(isa MATCHES "^(avx512bf16|amx)$")
      set(sources ${bf16_sources})
    endif()
    add_library(hekla_kernels_${isa} OBJECT ${sources})
    hekla_library_objects(hekla_kernels_${isa})
    target_compile_definitions(hekla_kernels_${isa} PRIVATE HK_ISA_NAME=${isa})
    # -ffp-contract=fast: products and sums become one instruction where the set has it
    target_compile_options(hekla_kernels_${isa} PRIVATE -O3 -fno-trapping-math -ffp-contract=fast
                                                        ${hekla_isa_flags_${isa}})
    # fuzzers read files and run no kernels, which Clang takes minutes to build with checks
    set_target_properties(hekla_kernels_${isa} PROPERTIES HEKLA_UNCHECKED "${HEKLA_FUZZ}")
    list(APPEND objects $<TARGET_OBJECTS:hekla_kernels_${isa}>)
  endforeach()
  set(${OUT_VAR} ${objects} PARENT_SCOPE)
endfunction()
