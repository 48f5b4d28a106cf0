#include "lab/loop.h"
#include "base/base.h"
#include <stdlib.h>
#include <string.h>

struct label {
    const char *name;
    size_t length;
    int line, counted, multiplies; /* before it */
};

struct loop {
    int first, last; /* lines */
    int counted, multiplies;
};

struct reader {
    int line, counted, multiplies; /* so far */
    struct label *labels;
    int n_labels, label_capacity;
    struct loop *loops;
    int n_loops, loop_capacity;
};

static const char *const multiplies[] = {
    "v_fma",    "v_mac_f",    "v_mad_f", "v_mada", "v_madm",
    "v_pk_fma", "v_dual_fma", "v_dot2",  "v_wmma", "v_swmmac", /* RADV */
    "ffma",     "hfma2",      "hmma",                          /* NVK */
    "mad.f",                                                   /* Turnip */
};
static const char *const waits[] = {"s_wait", "s_delay_alu", "s_nop", "s_clause", "nop"};
static const char *const branches[] = {"s_branch", "s_cbranch", "br", "jump", "bany", "ball"};

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

static void add_label(struct reader *r, const char *name, size_t length) {
    if (!hk_grow(&r->labels, &r->label_capacity, r->n_labels + 1, sizeof *r->labels)) abort();
    r->labels[r->n_labels++] = (struct label){name, length, r->line, r->counted, r->multiplies};
}

/* Where the branch goes back, to a label that came before. */
static void add_loop(struct reader *r, const char *target, size_t length) {
    const struct label *label = r->labels, *const last = r->labels + r->n_labels;
    while (label < last && (label->length != length || strncmp(label->name, target, length))) label++;
    if (label == last) return;
    if (!hk_grow(&r->loops, &r->loop_capacity, r->n_loops + 1, sizeof *r->loops)) abort();
    r->loops[r->n_loops++] =
        (struct loop){label->line, r->line, r->counted - label->counted, r->multiplies - label->multiplies};
}

/* One instruction: "(ss)(rpt1)mad.f32 r0.x, ...", "@!p0 r1 = ffma r2 ...", "v_dual_fmac_f32 ... :: v_dual_mov_b32 ...".
 */
static void read_instruction(struct reader *r, const char *text, const char *end) {
    int times = 1;
    while (text < end && (*text == '(' || *text == '@')) {
        if (!strncmp(text, "(rpt", 4)) times = atoi(text + 4) + 1;
        while (text < end && *text != ')' && *text != ' ') text++;
        text = skip_space(text + 1, end);
    }
    for (const char *at = text; at + 2 < end; at++)
        if (!strncmp(at, " = ", 3)) text = skip_space(at + 3, end);
    if (text >= end || is_one_of(waits, HK_LENGTH(waits), text)) return;
    r->counted += times;
    if (is_one_of(multiplies, HK_LENGTH(multiplies), text)) r->multiplies += times;
    if (!is_one_of(branches, HK_LENGTH(branches), text)) return;
    const char *target = end; /* its last word */
    while (target > text && target[-1] != ' ' && target[-1] != '\t' && target[-1] != '#') target--;
    add_loop(r, target, (size_t)(end - target));
}

static void read_line(struct reader *r, const char *text, const char *end) {
    r->line++;
    for (const char *at = text; at < end; at++) /* comments */
        if (*at == ';' || (*at == '/' && at[1] == '/')) end = at;
    text = skip_space(text, end);
    while (end > text && (end[-1] == ' ' || end[-1] == '\t')) end--;
    if (text == end || *text == '}') return;
    if (!strncmp(text, "block", 5)) { /* "block.u 2 L3 [1, 9] -> {" */
        text = skip_space(text + word_length(text, end), end);
        text = skip_space(text + word_length(text, end), end);
        add_label(r, text, word_length(text, end));
    } else if (end[-1] == ':' && word_length(text, end) == (size_t)(end - text)) {
        add_label(r, text, (size_t)(end - text) - 1);
    } else {
        for (const char *at = text; at + 4 < end; at++)
            if (!strncmp(at, " :: ", 4)) read_instruction(r, text, at), text = at + 4;
        read_instruction(r, text, end);
    }
}

/* Loops of one label are one, with several ways back: the last of them ends it. */
static bool is_innermost(const struct reader *r, const struct loop *loop) {
    for (const struct loop *i = r->loops; i < r->loops + r->n_loops; i++)
        if (i != loop && i->first >= loop->first && i->last <= loop->last && i->first != loop->first) return false;
    return true;
}

double lab_loop_share(const char *assembly) {
    struct reader r = {0};
    const struct loop *hot = NULL;
    for (const char *end; *assembly; assembly = *end ? end + 1 : end) {
        end = assembly + strcspn(assembly, "\n");
        read_line(&r, assembly, end);
    }
    for (const struct loop *i = r.loops; i < r.loops + r.n_loops; i++)
        if (is_innermost(&r, i) && i->multiplies > 0 && (!hot || i->multiplies >= hot->multiplies)) hot = i;
    const double share = hot ? 100.0 * hot->multiplies / hot->counted : -1;
    free(r.labels);
    free(r.loops);
    return share;
}
