#include "lab/loop.h"
#include "base/base.h"
#include <stdlib.h>
#include <string.h>

/* Instructions that are entered at the first and left after the last. */
struct block {
    const char *label;
    size_t label_length;
    int counted, multiplies;
    const char *target; /* of the branch that ends it; NULL: none */
    size_t target_length;
    bool falls_through;
    int to; /* the target's block; -1: none */
};

struct code {
    struct block *blocks; /* the last is still being read */
    int count, capacity;
};

/* ---- Reading ---- */

static const char *const multiplies[] = {
    "v_fma",    "v_mac_f",    "v_mad_f", "v_mada", "v_madm",
    "v_pk_fma", "v_dual_fma", "v_dot2",  "v_wmma", "v_swmmac", /* RADV */
    "ffma",     "hfma2",      "hmma",                          /* NVK */
    "mad.f",                                                   /* Turnip */
};
static const char *const waits[] = {"s_wait", "s_delay_alu", "s_nop", "s_clause", "nop"};
static const char *const branches[] = {"s_branch", "s_cbranch", "br", "jump", "bany", "ball"};
static const char *const always[] = {"s_branch", "jump"}; /* and "bra LABEL", "bra pT LABEL" */
static const char *const ends[] = {"s_endpgm", "exit", "end"};

#define IS_ONE_OF(list, word) is_one_of(list, HK_LENGTH(list), word)

static bool is_one_of(const char *const *list, size_t count, const char *word) {
    for (size_t i = 0; i < count; i++)
        if (!strncmp(list[i], word, strlen(list[i]))) return true;
    return false;
}

static size_t word_length(const char *text, const char *end) {
    const char *at = text;
    while (at < end && *at != ' ' && *at != '\t') at++;
    return (size_t)(at - text);
}

static const char *skip_space(const char *text, const char *end) {
    while (text < end && (*text == ' ' || *text == '\t')) text++;
    return text;
}

static struct block *last_block(struct code *code) { return &code->blocks[code->count - 1]; }

static void begin_block(struct code *code, const char *label, size_t length) {
    if (!hk_grow(&code->blocks, &code->capacity, code->count + 1, sizeof *code->blocks)) abort();
    code->blocks[code->count++] = (struct block){.label = label, .label_length = length, .falls_through = true};
}

static void end_block(struct code *code, const char *text, const char *end, bool predicated) {
    const char *target = end, *const operand = skip_space(text + word_length(text, end), end);
    while (target > text && target[-1] != ' ' && target[-1] != '\t' && target[-1] != '#') target--;
    last_block(code)->target = target;
    last_block(code)->target_length = (size_t)(end - target);
    last_block(code)->falls_through = !IS_ONE_OF(always, text) && (predicated || strncmp(text, "bra ", 4) ||
                                                                   (operand != target && strncmp(operand, "pT ", 3)));
    begin_block(code, NULL, 0);
}

/* One instruction: "(ss)(rpt1)mad.f32 r0.x, ...", "@!p0 r1 = ffma r2 ...", "v_dual_fmac_f32 ... :: v_dual_mov_b32 ...".
 */
static void read_instruction(struct code *code, const char *text, const char *end) {
    const bool predicated = *text == '@';
    int times = 1;
    while (text < end && (*text == '(' || *text == '@')) {
        if (!strncmp(text, "(rpt", 4)) times = atoi(text + 4) + 1;
        while (text < end && *text != ')' && *text != ' ') text++;
        text = skip_space(text + 1, end);
    }
    for (const char *at = text; at + 2 < end; at++)
        if (!strncmp(at, " = ", 3)) text = skip_space(at + 3, end);
    if (text >= end || IS_ONE_OF(waits, text)) return;
    last_block(code)->counted += times;
    if (IS_ONE_OF(multiplies, text)) last_block(code)->multiplies += times;
    if (IS_ONE_OF(branches, text)) {
        end_block(code, text, end, predicated);
    } else if (IS_ONE_OF(ends, text)) {
        last_block(code)->falls_through = predicated;
        begin_block(code, NULL, 0);
    }
}

static void read_line(struct code *code, const char *text, const char *end) {
    for (const char *at = text; at < end; at++) /* comments */
        if (*at == ';' || (*at == '/' && at[1] == '/')) end = at;
    text = skip_space(text, end);
    while (end > text && (end[-1] == ' ' || end[-1] == '\t')) end--;
    if (text == end || *text == '}') return;
    if (!strncmp(text, "block", 5)) { /* "block.u 2 L3 [1, 9] -> {" */
        text = skip_space(text + word_length(text, end), end);
        text = skip_space(text + word_length(text, end), end);
        begin_block(code, text, word_length(text, end));
    } else if (end[-1] == ':' && word_length(text, end) == (size_t)(end - text)) {
        begin_block(code, text, (size_t)(end - text) - 1);
    } else {
        for (const char *at = text; at + 4 < end; at++)
            if (!strncmp(at, " :: ", 4)) read_instruction(code, text, at), text = at + 4;
        read_instruction(code, text, end);
    }
}

static int find_target(const struct code *code, const struct block *from) {
    for (int i = 0; i < code->count && from->target; i++)
        if (code->blocks[i].label_length == from->target_length &&
            !strncmp(code->blocks[i].label, from->target, from->target_length))
            return i;
    return -1;
}

/* ---- Loops ---- */

/* Marks the blocks from which a branch back to `head` is reached without passing it; false where there is none. Blocks
   before the head do not count: a loop is entered at its top. */
static bool mark_loop(const struct code *code, int head, bool *inside) {
    bool found = false;
    memset(inside, 0, (size_t)code->count);
    for (int i = head; i < code->count; i++) found |= inside[i] = code->blocks[i].to == head;
    for (bool more = found; more;) {
        more = false;
        for (int i = code->count - 1; i > head; i--) {
            const struct block *b = &code->blocks[i];
            if (inside[i] ||
                !((b->to > head && inside[b->to]) || (b->falls_through && i + 1 < code->count && inside[i + 1])))
                continue;
            inside[i] = more = true;
        }
    }
    inside[head] = found;
    return found;
}

/* Whether another loop begins inside. */
static bool has_loop(const struct code *code, int head, const bool *inside) {
    for (int i = head; i < code->count; i++)
        if (inside[i] && code->blocks[i].to > head && code->blocks[i].to <= i) return true;
    return false;
}

double lab_loop_share(const char *assembly) {
    struct code code = {0};
    double share = -1;
    int most = 0;
    begin_block(&code, NULL, 0);
    for (const char *end; *assembly; assembly = *end ? end + 1 : end) {
        end = assembly + strcspn(assembly, "\n");
        read_line(&code, assembly, end);
    }
    bool *inside = malloc((size_t)code.count);
    if (!inside) abort();
    for (int i = 0; i < code.count; i++) code.blocks[i].to = find_target(&code, &code.blocks[i]);
    for (int head = 0; head < code.count; head++) {
        if (!code.blocks[head].label || !mark_loop(&code, head, inside) || has_loop(&code, head, inside)) continue;
        int counted = 0, multiplied = 0;
        for (int i = head; i < code.count; i++)
            if (inside[i]) counted += code.blocks[i].counted, multiplied += code.blocks[i].multiplies;
        if (multiplied > most) most = multiplied, share = 100.0 * multiplied / counted;
    }
    free(inside);
    free(code.blocks);
    return share;
}
