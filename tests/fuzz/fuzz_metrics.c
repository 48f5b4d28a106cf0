/* Logs that lie: what is kept of one are whole lines, all of them are kept again, and none of a later step. The first
   character is the last step, a digit. */
#include "fuzz.h"
#include "io/files.h"

bool fuzz_one(const uint8_t *data, size_t bytes) {
    if (bytes < 1) return false;
    const int64_t last = data[0] - (int64_t)'0';
    const char *text = (const char *)data + 1;
    const size_t kept = metrics_kept(text, bytes - 1, last);
    FUZZ_CHECK(kept <= bytes - 1 && (kept == 0 || text[kept - 1] == '\n'));
    FUZZ_CHECK(metrics_kept(text, kept, last) == kept);
    FUZZ_CHECK(metrics_kept(text, bytes - 1, last - 1) <= kept && metrics_kept(text, kept, last + 1) == kept);
    return kept > 0 && kept == bytes - 1;
}
