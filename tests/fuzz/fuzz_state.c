/* States that lie: what is accepted reads back from what is written of it, to the last bit. */
#include "fuzz.h"
#include "io/files.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool same_number(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static bool same(const struct hk_run_state *a, const struct hk_run_state *b) {
    const struct hk_schedule *s = &a->schedule, *t = &b->schedule;
    const struct hk_optimizer_params *o = &a->optimizer, *p = &b->optimizer;
    return a->step == b->step && a->steps == b->steps && a->minutes == b->minutes && a->seed == b->seed &&
           a->seconds == b->seconds && same_number(a->loss, b->loss) &&
           same_number(a->held_out_loss, b->held_out_loss) && a->batch == b->batch && a->length == b->length &&
           a->accumulate == b->accumulate && a->evaluate_every == b->evaluate_every && a->data_hash == b->data_hash &&
           !strcmp(a->data, b->data) && s->kind == t->kind && s->peak == t->peak && s->floor == t->floor &&
           s->warmup == t->warmup && s->steps == t->steps && o->kind == p->kind && o->momentum == p->momentum &&
           o->beta1 == p->beta1 && o->beta2 == p->beta2 && o->epsilon == p->epsilon &&
           o->weight_decay == p->weight_decay && o->clip == p->clip;
}

bool fuzz_one(const uint8_t *data, size_t bytes) {
    struct hk_run_state state, again;
    if (state_parse((const char *)data, bytes, &state)) {
        FUZZ_CHECK(hk_error_status() != HK_OK && *hk_error_message());
        return false;
    }
    char *text = state_format(&state);
    FUZZ_CHECK(text && state_parse(text, strlen(text), &again) == HK_OK && same(&state, &again));
    free(text);
    return true;
}
