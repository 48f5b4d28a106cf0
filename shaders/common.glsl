// Rules of all kernels: `#version 450` and this file first; workgroup size x is specialization constant 0; further
// constants follow from 1; one push-constant block named `p`; storage buffers in set 0. Each buffer is declared by
// FLOATS/INTS/WORDS(binding, name) and indexed from a base in 4-byte words that is in the push constants (p.base_name).
// Grids are linear: group() is the workgroup's number, item() the invocation's; compare with the count and return.
layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;

#define FLOATS(b, name) layout(set = 0, binding = b, std430) buffer Floats_##name { float name[]; }
#define INTS(b, name) layout(set = 0, binding = b, std430) buffer Ints_##name { int name[]; }
#define WORDS(b, name) layout(set = 0, binding = b, std430) buffer Words_##name { uint name[]; }
// The same memory by four words, or by two.
#define WORD_FOURS(b, name) layout(set = 0, binding = b, std430) buffer Fours_##name { uvec4 name[]; }
#define WORD_TWOS(b, name) layout(set = 0, binding = b, std430) buffer Twos_##name { uvec2 name[]; }
// Only read, and nothing that this kernel writes: lets the driver keep and reorder loads.
#define READ_FLOATS(b, name) layout(set = 0, binding = b, std430) restrict readonly buffer Floats_##name { float name[]; }
#define READ_WORDS(b, name) layout(set = 0, binding = b, std430) restrict readonly buffer Words_##name { uint name[]; }

uint group() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }
uint item() { return group() * gl_WorkGroupSize.x + gl_LocalInvocationID.x; }
