/* Learning rates by step. */
#include <hekla/nn.h>
#include <math.h>

float hk_schedule_at(const struct hk_schedule *s, int64_t step) {
    const double pi = 3.14159265358979323846, peak = (double)s->peak, below = (double)s->floor;
    if (step < s->warmup) return (float)(peak * (double)step / (double)s->warmup);
    if (s->kind == HK_SCHEDULE_CONSTANT) return s->peak;
    if (step >= s->steps) return s->floor;
    const double done = (double)(step - s->warmup) / (double)(s->steps - s->warmup); /* 0 to 1 */
    const double left = s->kind == HK_SCHEDULE_COSINE ? 0.5 * (1 + cos(pi * done)) : 1 - done;
    return (float)(below + (peak - below) * left);
}
