/* Every Vulkan call and every allocation fails once while a program is compiled that is tuned: the device's loss is said,
   anything else leaves the right result or a status, and nothing is left behind. What fails in measuring alone never keeps a
   program from being compiled. Skipped without a Vulkan device. */
#include "base/base.h"
#include "faults/faults.h"
#include "support.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HK_WITH_VULKAN
#include "vulkan/device.h"

enum { N = 24, MOST_COMPLAINTS = 20 };

static char folder[128], path[160], lock[170];
static int complaints;

static float value(int i) { return (float)((i * 37 + 11) % 17 - 8); }

static bool is_right(const float *c) {
    for (int i = 0; i < N * N; i++) {
        float sum = 0;
        for (int k = 0; k < N; k++) sum += value(i / N * N + k) * value(k * N + i % N);
        if (c[i] != sum) return false;
    }
    return true;
}

/* Opens, compiles, runs; *compiled: whether it came so far. */
static hk_status run_job(float *c, bool *compiled) {
    float a[N * N];
    for (int i = 0; i < N * N; i++) a[i] = value(i);
    const struct hk_device_params params = {.name = "vulkan:0", .cache_dir = "", .tune = 1000, .tuning = path};
    struct hk_device *device = hk_device_open(&params);
    struct hk_tensor *in = device ? hk_tensor_from(device, HK_F32, HK_SHAPE(N, N), a) : NULL;
    struct hk_tensor *out = in ? hk_tensor_create(device, HK_F32, HK_SHAPE(N, N)) : NULL;
    struct hk_graph *graph = out ? hk_graph_create() : NULL;
    if (graph) hk_store(out, hk_matmul(hk_leaf(graph, in), hk_leaf(graph, in)));
    struct hk_program *program = graph ? hk_compile(device, graph, NULL) : NULL;
    *compiled = program;
    hk_status status = program ? hk_program_run(program) : hk_error_status();
    if (!status) status = hk_tensor_read(out, c, N * N * sizeof *c);
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&in);
    hk_tensor_destroy(&out);
    hk_device_destroy(&device);
    return status;
}

static void complain(const char *what, const struct fault_report *r, long n, int variant) {
    char chain[2048];
    if (complaints++ >= MOST_COMPLAINTS) return;
    fault_describe(r, chain, sizeof chain);
    fprintf(stderr, "FAILED: %s, call %ld, variant %d: %s\n    last message: %s\n", chain, n, variant, what, hk_error_message());
}

/* False where there is no n-th call. */
static bool try_one(enum fault_kind kind, long n, int variant, int *measuring) {
    float c[N * N] = {0};
    bool compiled;
    const long allocations = fault_live_allocations(), objects = fault_live_vulkan(), files = fault_live_files();
    unlink(path);
    hk_fail(HK_OK, "%s", "");
    fault_arm(kind, n, variant);
    const hk_status status = run_job(c, &compiled);
    const struct fault_report *r = fault_disarm();
    const bool tuning = r->fired && fault_called_by(r, "vk_tune");
    const bool lost = kind == FAULT_VULKAN && r->result == VK_ERROR_DEVICE_LOST;
    /* what was promised to be written is then missing, and the device counts as lost */
    const bool may_be_lost = lost || (r->fired && fault_called_by(r, "vk_transfers_take"));
    *measuring += tuning;
    if (status && !*hk_error_message()) complain("no message", r, n, variant);
    if (!r->fired && status) complain("the job fails by itself", r, n, variant);
    if (!status && !is_right(c)) complain("a wrong result", r, n, variant);
    if (tuning && lost && status != HK_ERROR_DEVICE_LOST) complain("nobody said that the device is lost", r, n, variant);
    if (tuning && (status || !compiled) && !(may_be_lost && status == HK_ERROR_DEVICE_LOST))
        complain("what failed in measuring kept the program from running", r, n, variant);
    if (fault_live_allocations() != allocations) complain("memory is left behind", r, n, variant);
    if (fault_live_vulkan() != objects) complain("Vulkan objects are left behind", r, n, variant);
    if (fault_live_files() != files) complain("files are left open", r, n, variant);
    return r->fired;
}

static void try_all(const char *name, enum fault_kind kind, int stride) {
    long n = 1;
    int measuring = 0;
    const double begin = hk_seconds();
    for (int variant = 0; try_one(kind, n, variant, &measuring); variant++) n += stride;
    printf("%s: %ld calls, %d faults in measuring, %d complaints, %.1f s\n", name, n, measuring, complaints, hk_seconds() - begin);
    if (measuring < 5) complain("measuring was hardly seen", fault_disarm(), n, 0);
    fflush(stdout);
}

int main(void) {
    int count = 0;
    faults_install();
    if (hk_device_list(NULL, 0, &count) || count < 2) {
        printf("no Vulkan device on this machine\n");
        return TEST_SKIPPED;
    }
    const char *place = access("/dev/shm", W_OK) ? getenv("TMPDIR") : "/dev/shm";
    snprintf(folder, sizeof folder, "%s/hekla-faults-tune-XXXXXX", place ? place : "/tmp");
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/tuning.json", folder);
    snprintf(lock, sizeof lock, "%s.lock", path);
    fault_vulkan_keep(true);
    float c[N * N];
    bool compiled;
    if (run_job(c, &compiled)) return 1; /* what drivers keep open from their first use on is no leak of ours */
    try_all("Vulkan calls", FAULT_VULKAN, 1);
    try_all("memory", FAULT_MEMORY, 3);
    try_all("arenas and lists", FAULT_ARENA, 1);
    fault_vulkan_keep(false);
    unlink(path);
    unlink(lock);
    rmdir(folder);
    return complaints ? 1 : 0;
}
#else
int main(void) {
    printf("no Vulkan backend in this build\n");
    return TEST_SKIPPED;
}
#endif
