/* Sums, means and maxima on the CPU: level by level, pieces of rows or blocks of columns on all threads. */
#ifdef HK_ISA_NAME
#include "op/reduce_cpu.h"
#include "op/reduce.h"

enum { COLUMNS = 512, FEW_ROWS = 64, BLOCK = 4096 };
_Static_assert(HK_MAX(FEW_ROWS * COLUMNS, REDUCE_PIECE) * sizeof(float) <= CPU_WORKSPACE_BYTES, "the buffer of a thread");

struct job {
    enum reduce_kind kind;
    int64_t A, R, B, pieces, blocks; /* blocks of COLUMNS columns */
    int64_t piece;                   /* rows that each but the last has */
    const float *x;                  /* [A, R, B]; NULL: `first` makes it, for us alone */
    float *y;                        /* [A, pieces, B] */
    int32_t *index;                  /* argmax: [A] */
    float scale;
    const struct cpu *cpu;
    const struct fused_job *first; /* what makes x, part by part; NULL: it is there */
};

/* Elements [begin, begin + n) of x, which are made now if `first` makes them; without memory of their own from element `at` of
   the thread's buffer on. */
static const float *elements_of(const struct job *j, int thread, int64_t begin, int64_t n, int64_t at) {
    float *buffer = (float *)((char *)j->cpu->workspace + (size_t)thread * j->cpu->workspace_bytes) + at;
    if (j->first) fused_run(j->first, begin, begin + n, buffer);
    return j->x ? j->x + begin : buffer;
}

static inline float max_of(float m, float x) { return x > m || x != x ? x : m; } /* NaN wins */

static float row_sum(const float *x, int64_t n) {
    double total = 0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = HK_MIN(begin + BLOCK, n);
        vf acc[4] = {0};
        float tail = 0;
        int64_t i = begin;
        for (; i + 4 * VW <= end; i += 4 * VW)
            for (int k = 0; k < 4; k++) acc[k] += v_load(x + i + k * VW);
        for (; i + VW <= end; i += VW) acc[0] += v_load(x + i);
        for (; i < end; i++) tail += x[i];
        total += (double)(v_sum((acc[0] + acc[1]) + (acc[2] + acc[3])) + tail);
    }
    return (float)total;
}

static float row_max(const float *x, int64_t n) {
    vf acc = v_set(-INFINITY);
    int64_t i = 0;
    for (; i + VW <= n; i += VW) {
        const vf v = v_load(x + i);
        acc = v_select((v > acc) | (v != v), v, acc);
    }
    float m = -INFINITY;
    for (int k = 0; k < VW; k++) m = max_of(m, acc[k]);
    for (; i < n; i++) m = max_of(m, x[i]);
    return m;
}

static int32_t row_argmax(const float *x, int64_t n) {
    const float m = row_max(x, n);
    for (int64_t i = 0; i < n; i++)
        if (x[i] == m || x[i] != x[i]) return (int32_t)i;
    return 0;
}

static void reduce_row(const struct job *j, const float *x, int64_t n, int64_t item) {
    if (j->kind == REDUCE_SUM) j->y[item] = row_sum(x, n) * j->scale;
    else if (j->kind == REDUCE_MAX) j->y[item] = row_max(x, n);
    else j->index[item] = row_argmax(x, n);
}

/* item: one piece of one row of the R numbers (B is 1). Short rows are fetched several at a time. */
static void rows_body(void *context, int thread, int64_t begin, int64_t end) {
    const struct job *j = context;
    const int64_t at_once = j->pieces > 1 ? 1 : HK_MAX(BLOCK / j->piece, 1);
    for (int64_t item = begin; item < end; item += at_once) {
        const int64_t a = item / j->pieces, r = (item - a * j->pieces) * j->piece, n = HK_MIN(j->piece, j->R - r);
        const int64_t items = HK_MIN(at_once, end - item);
        const float *x = elements_of(j, thread, a * j->R + r, n * items, 0);
        for (int64_t k = 0; k < items; k++) reduce_row(j, x + k * n, n, item + k);
    }
}

/* Some columns of some of the R rows of a: of such a block, row r begins at x + r * stride. */
struct block {
    const struct job *job;
    int thread;
    int64_t a, row, rows, column, columns;
};

static const float *rows_of(const struct block *k, int64_t row, int64_t rows, int64_t *stride) {
    const struct job *j = k->job;
    const int64_t begin = (k->a * j->R + k->row + row) * j->B + k->column;
    const bool whole = k->columns == j->B || !j->first;
    *stride = j->x ? j->B : k->columns;
    if (whole) return elements_of(j, k->thread, begin, rows * j->B, 0);
    for (int64_t r = rows - 1; r > 0; r--) elements_of(j, k->thread, begin + r * j->B, k->columns, r * k->columns);
    return elements_of(j, k->thread, begin, k->columns, 0);
}

static void add_rows(const float *x, int64_t rows, int64_t stride, int64_t columns, float *sum) {
    memset(sum, 0, (size_t)columns * sizeof *sum);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t b = 0; b < columns; b++) sum[b] += x[r * stride + b];
}

static void columns_sum(const struct block *k, float *y) {
    float total[COLUMNS], part[COLUMNS];
    int64_t stride;
    memset(total, 0, sizeof total);
    for (int64_t r = 0; r < k->rows; r += FEW_ROWS) {
        const int64_t rows = HK_MIN(FEW_ROWS, k->rows - r);
        const float *x = rows_of(k, r, rows, &stride);
        add_rows(x, rows, stride, k->columns, part);
        for (int64_t b = 0; b < k->columns; b++) total[b] += part[b];
    }
    for (int64_t b = 0; b < k->columns; b++) y[b] = total[b] * k->job->scale;
}

static void columns_max(const struct block *k, float *y) {
    int64_t stride;
    for (int64_t b = 0; b < k->columns; b++) y[b] = -INFINITY;
    for (int64_t r = 0; r < k->rows; r += FEW_ROWS) {
        const int64_t rows = HK_MIN(FEW_ROWS, k->rows - r);
        const float *x = rows_of(k, r, rows, &stride);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t b = 0; b < k->columns; b++) y[b] = max_of(y[b], x[i * stride + b]);
    }
}

/* item: one block of columns of one piece of one a. */
static void columns_body(void *context, int thread, int64_t begin, int64_t end) {
    const struct job *j = context;
    for (int64_t item = begin; item < end; item++) {
        const int64_t b = item % j->blocks * COLUMNS, rest = item / j->blocks, p = rest % j->pieces, a = rest / j->pieces;
        const int64_t row = p * j->piece;
        const struct block block = {j, thread, a, row, HK_MIN(j->piece, j->R - row), b, HK_MIN(COLUMNS, j->B - b)};
        float *y = j->y + (a * j->pieces + p) * j->B + b;
        if (j->kind == REDUCE_SUM) columns_sum(&block, y);
        else columns_max(&block, y);
    }
}

static void run_job(struct job *j) {
    j->piece = j->pieces > 1 ? piece_rows(j->B) : HK_MAX(j->R, 1);
    j->blocks = (j->B + COLUMNS - 1) / COLUMNS;
    const int64_t grain = HK_MAX(CPU_GRAIN / (j->piece * HK_MIN(j->B, COLUMNS)), 1);
    cpu_for_threads(j->cpu, j->A * j->pieces * j->blocks, grain, j->B == 1 ? rows_body : columns_body, j);
}

void reduce_run(const struct hk_step *step, const struct cpu *cpu, const struct fused_job *first) {
    const struct reduce_attrs *attrs = step->attrs;
    const int64_t *shape = step->inputs[0].shape;
    struct job j = {.kind = attrs->kind, .A = shape[0], .R = shape[1], .B = shape[2], .pieces = 1, .scale = attrs->scale};
    j.cpu = cpu, j.first = first;
    j.x = step->inputs[0].buffer ? cpu_data(&step->inputs[0]) : NULL;
    j.y = cpu_data(&step->outputs[0]);
    j.index = cpu_data(&step->outputs[0]);
    if (j.A == 0 || j.B == 0) return;
    while (j.kind != REDUCE_ARGMAX && (j.pieces = piece_count(j.R, j.B)) > 1) {
        struct job level = j;
        level.y = cpu_data(&step->scratch);
        if (level.y == j.x) level.y += j.A * j.R * j.B; /* a second level: behind the first */
        level.scale = 1;
        run_job(&level);
        j.x = level.y, j.R = level.pieces, j.first = NULL;
    }
    run_job(&j);
}

CPU_KERNEL(reduce) { reduce_run(step, cpu, NULL); }

#endif
