/* Elementwise loops over strided operands, and strided copies, for the kernel part of op files. */
#ifndef HK_CPU_LOOPS_H
#define HK_CPU_LOOPS_H

#include "cpu/simd.h"
#include "op/strided.h"

/* Drops dimensions of size 1 and merges those that all operands have in one run. The rank stays at least 1. */
static inline void cpu_simplify(struct hk_operand *operands, int count) {
    int rank = 0;
    struct hk_operand *o = operands;
    for (int i = 0; i < o[0].rank; i++) {
        bool merges = rank > 0;
        if (o[0].shape[i] == 1) continue;
        for (int k = 0; k < count; k++) merges = merges && o[k].stride[rank - 1] == o[k].stride[i] * o[0].shape[i];
        if (!merges) rank++;
        for (int k = 0; k < count; k++) {
            o[k].shape[rank - 1] = merges ? o[k].shape[rank - 1] * o[k].shape[i] : o[k].shape[i];
            o[k].stride[rank - 1] = o[k].stride[i];
        }
    }
    for (int k = 0; k < count; k++) {
        o[k].rank = HK_MAX(rank, 1);
        if (rank == 0) o[k].shape[0] = 1, o[k].stride[0] = 1;
    }
}

static inline bool cpu_is_dense(const struct hk_operand *o) {
    int64_t stride = 1;
    for (int i = o->rank - 1; i >= 0; i--) {
        if (o->stride[i] != stride) return false;
        stride *= o->shape[i];
    }
    return true;
}

enum { CPU_RUN = 1024, CPU_GRAIN = 32768, CPU_LONG_ROW = 64 };

/* One elementwise op: operand 0 is the output, dense; the inputs have its shape, with stride 0 where broadcast. The chunk
   function sees dense runs of at most CPU_RUN elements; inputs that are no such runs are gathered first. */
struct cpu_loop {
    int count;
    struct hk_operand operands[1 + HK_CHUNK_INPUTS];
    bool dense[1 + HK_CHUNK_INPUTS];
    hk_cpu_chunk *run;
    struct hk_chunk chunk;
};

/* Coordinates in an operand's first `dims` dimensions: those of what is there at a number in row-major order, ... */
static inline void cpu_seek(const struct hk_operand *o, int dims, int64_t number, int64_t *at) {
    for (int i = dims - 1; i >= 0; i--) {
        const int64_t next = number / o->shape[i];
        at[i] = number - next * o->shape[i];
        number = next;
    }
}

/* ... those of what comes next, ... */
static inline void cpu_next(const struct hk_operand *o, int dims, int64_t *at) {
    for (int i = dims - 1; i >= 0; i--) {
        if (++at[i] < o->shape[i]) return;
        at[i] = 0;
    }
}

/* ... and where that begins, in elements. */
static inline int64_t cpu_offset(const struct hk_operand *o, int dims, const int64_t *at) {
    int64_t offset = 0;
    for (int i = 0; i < dims; i++) offset += at[i] * o->stride[i];
    return offset;
}

static inline int64_t cpu_offset_of(const struct hk_operand *o, int dims, int64_t number) {
    int64_t at[HK_MAX_RANK] = {0};
    cpu_seek(o, dims, number, at);
    return cpu_offset(o, dims, at);
}

/* Elements [begin, begin + n) of the operand in row-major order. */
static inline void cpu_gather(const struct hk_operand *o, int64_t begin, int64_t n, uint32_t *to) {
    const int last = o->rank - 1;
    const int64_t step = o->stride[last], row = begin / o->shape[last];
    int64_t at[HK_MAX_RANK] = {0}, c = begin - row * o->shape[last];
    cpu_seek(o, last, row, at);
    while (n > 0) {
        const int64_t run = HK_MIN(n, o->shape[last] - c);
        const uint32_t *from = (const uint32_t *)cpu_data(o) + cpu_offset(o, last, at) + c * step;
        if (step == 0)
            for (int64_t i = 0; i < run; i++) to[i] = *from;
        else
            for (int64_t i = 0; i < run; i++) to[i] = from[i * step];
        to += run, n -= run, c = 0;
        cpu_next(o, last, at);
    }
}

/* A pointer to elements [begin, begin + n): the operand's own memory, or the buffer filled with them. Operands that are
   not dense have elements of 4 bytes. */
static inline const void *cpu_fetch(const struct hk_operand *o, bool dense, int64_t begin, int64_t n, uint32_t *buffer) {
    if (dense) return (const char *)cpu_data(o) + begin * (int64_t)hk_dtype_size(o->dtype);
    const int last = o->rank - 1;
    const int64_t row = begin / o->shape[last], c = begin - row * o->shape[last];
    if (o->stride[last] == 1 && c + n <= o->shape[last]) return (uint32_t *)cpu_data(o) + cpu_offset_of(o, last, row) + c;
    cpu_gather(o, begin, n, buffer);
    return buffer;
}

/* How many elements from `begin` on make the next run: where not all inputs are dense, long rows are read in place. */
static inline int64_t cpu_run_length(const struct hk_operand *out, bool all_dense, int64_t begin, int64_t end) {
    const int64_t inner = out->shape[out->rank - 1], n = HK_MIN(CPU_RUN, end - begin);
    return !all_dense && inner >= CPU_LONG_ROW ? HK_MIN(n, inner - begin % inner) : n;
}

static inline void cpu_loop_body(void *context, int64_t begin, int64_t end) {
    const struct cpu_loop *loop = context;
    uint32_t buffers[HK_CHUNK_INPUTS][CPU_RUN] __attribute__((aligned(64)));
    const void *in[HK_CHUNK_INPUTS] = {0};
    const struct hk_operand *out = &loop->operands[0];
    bool all_dense = true;
    for (int k = 1; k < loop->count; k++) all_dense = all_dense && loop->dense[k];
    while (begin < end) {
        const int64_t n = cpu_run_length(out, all_dense, begin, end);
        for (int k = 1; k < loop->count; k++)
            in[k - 1] = cpu_fetch(&loop->operands[k], loop->dense[k], begin, n, buffers[k - 1]);
        loop->run(&loop->chunk, (char *)cpu_data(out) + begin * (int64_t)hk_dtype_size(out->dtype), in, n);
        begin += n;
    }
}

/* The whole of an elementwise op. */
static inline void cpu_elementwise(const struct cpu *cpu, const struct hk_step *step, hk_cpu_chunk *run) {
    const int64_t count = cpu_elements(&step->outputs[0]);
    struct cpu_loop loop = {.count = step->n_inputs + 1, .run = run};
    if (count == 0) return;
    loop.chunk = (struct hk_chunk){step->attrs, step->n_inputs, step->inputs[0].dtype, step->outputs[0].dtype};
    loop.operands[0] = step->outputs[0];
    for (int k = 0; k < step->n_inputs; k++)
        loop.operands[k + 1] = hk_broadcast_operand(&step->inputs[k], &step->outputs[0]);
    cpu_simplify(loop.operands, loop.count);
    for (int k = 0; k < loop.count; k++) loop.dense[k] = cpu_is_dense(&loop.operands[k]);
    cpu_for(cpu, count, CPU_GRAIN, cpu_loop_body, &loop);
}

/* ---- Strided copies, of elements of 1, 2 or 4 bytes ---- */

struct cpu_copy_job {
    struct hk_operand to, from;
    size_t size;
    int64_t rows, tiles; /* outer rows, and pieces of each */
};

enum { CPU_COPY_PIECE = 8192 };

static inline void cpu_copy_run(char *to, int64_t to_step, const char *from, int64_t from_step, int64_t n,
                                size_t size) {
    if (to_step == 1 && from_step == 1) memcpy(to, from, (size_t)n * size);
    else if (size == 4)
        for (int64_t i = 0; i < n; i++) ((uint32_t *)to)[i * to_step] = ((const uint32_t *)from)[i * from_step];
    else if (size == 2)
        for (int64_t i = 0; i < n; i++) ((uint16_t *)to)[i * to_step] = ((const uint16_t *)from)[i * from_step];
    else
        for (int64_t i = 0; i < n; i++) to[i * to_step] = from[i * from_step];
}

static inline void cpu_copy_body(void *context, int64_t begin, int64_t end) {
    const struct cpu_copy_job *job = context;
    const struct hk_operand *to = &job->to, *from = &job->from;
    const int last = to->rank - 1;
    int64_t at[HK_MAX_RANK] = {0}, row = begin / job->tiles, tile = begin - row * job->tiles;
    cpu_seek(to, last, row, at);
    for (int64_t item = begin; item < end; item++) {
        const int64_t c = tile * CPU_COPY_PIECE, n = HK_MIN(CPU_COPY_PIECE, to->shape[last] - c);
        const int64_t at_to = cpu_offset(to, last, at) + c * to->stride[last];
        const int64_t at_from = cpu_offset(from, last, at) + c * from->stride[last];
        cpu_copy_run((char *)cpu_data(to) + at_to * (int64_t)job->size, to->stride[last],
                     (const char *)cpu_data(from) + at_from * (int64_t)job->size, from->stride[last], n, job->size);
        if (++tile < job->tiles) continue;
        tile = 0;
        cpu_next(to, last, at);
    }
}

/* A transposed operand is copied by tiles; for that, the dimension that is dense in `from` goes last but one. */
static inline int cpu_dense_dimension(const struct hk_operand *o) {
    for (int i = 0; i + 1 < o->rank; i++)
        if (o->stride[i] == 1 && o->shape[i] >= 8) return i;
    return -1;
}

static inline void cpu_move_dimension(struct hk_operand *o, int from, int to) {
    const int64_t shape = o->shape[from], stride = o->stride[from];
    for (int i = from; i < to; i++) o->shape[i] = o->shape[i + 1], o->stride[i] = o->stride[i + 1];
    o->shape[to] = shape, o->stride[to] = stride;
}

enum { CPU_TILE = 16 };

/* to[j * to_row + i] = from[i * from_row + j] for i < rows, j < columns, both at most CPU_TILE; by way of a tile, so
   that both sides are touched a line at a time. */
static inline void cpu_transpose_tile(char *to, int64_t to_row, const char *from, int64_t from_row, int64_t rows,
                                      int64_t columns, size_t size) {
    uint32_t tile[CPU_TILE][CPU_TILE];
    if (size != 4) {
        for (int64_t j = 0; j < columns; j++)
            cpu_copy_run(to + j * to_row * (int64_t)size, 1, from + j * (int64_t)size, from_row, rows, size);
        return;
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) tile[j][i] = ((const uint32_t *)from)[i * from_row + j];
    for (int64_t j = 0; j < columns; j++) memcpy((uint32_t *)to + j * to_row, tile[j], (size_t)rows * 4);
}

/* item: an outer row and CPU_TILE elements of the last but one dimension, over all of the last. */
static inline void cpu_transpose_body(void *context, int64_t begin, int64_t end) {
    const struct cpu_copy_job *job = context;
    const struct hk_operand *to = &job->to, *from = &job->from;
    const int last = to->rank - 1, side = last - 1;
    for (int64_t item = begin; item < end; item++) {
        const int64_t row = item / job->tiles;
        const int64_t j = (item - row * job->tiles) * CPU_TILE, columns = HK_MIN(CPU_TILE, to->shape[side] - j);
        const int64_t at_to = cpu_offset_of(to, side, row) + j * to->stride[side], at_from = cpu_offset_of(from, side, row) + j;
        for (int64_t i = 0; i < to->shape[last]; i += CPU_TILE)
            cpu_transpose_tile((char *)cpu_data(to) + (at_to + i) * (int64_t)job->size, to->stride[side],
                               (const char *)cpu_data(from) + (at_from + i * from->stride[last]) * (int64_t)job->size,
                               from->stride[last], HK_MIN(CPU_TILE, to->shape[last] - i), columns, job->size);
    }
}

/* to = from, both of one shape and element size, any strides. */
static inline void cpu_copy(const struct cpu *cpu, const struct hk_operand *to, const struct hk_operand *from) {
    struct cpu_copy_job job = {*to, *from, hk_dtype_size(to->dtype), 1, 1};
    struct hk_operand pair[2] = {*to, *from};
    if (cpu_elements(to) == 0) return;
    cpu_simplify(pair, 2);
    const int last = pair[0].rank - 1, dense = pair[1].stride[last] > 1 ? cpu_dense_dimension(&pair[1]) : -1;
    const bool transposed = dense >= 0 && pair[0].stride[last] == 1 && pair[0].shape[last] >= 8;
    if (transposed)
        for (int k = 0; k < 2; k++) cpu_move_dimension(&pair[k], dense, last - 1);
    job.to = pair[0], job.from = pair[1];
    for (int i = 0; i < last - transposed; i++) job.rows *= pair[0].shape[i];
    const int64_t length = pair[0].shape[last], piece = transposed ? CPU_TILE : CPU_COPY_PIECE;
    job.tiles = ((transposed ? pair[0].shape[last - 1] : length) + piece - 1) / piece;
    const int64_t per_item = transposed ? length * CPU_TILE : HK_MIN(length, CPU_COPY_PIECE);
    cpu_for(cpu, job.rows * job.tiles, HK_MAX(CPU_GRAIN / per_item, 1), transposed ? cpu_transpose_body : cpu_copy_body,
            &job);
}

#endif
