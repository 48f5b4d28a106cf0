/* A device that is lost in the middle of training, at a submission or while it is waited for: another is opened in the same
   process, the run goes on from its checkpoint, and ends with the bits of one that nothing disturbed. Meanwhile the CPU and
   another device of the same driver train as well. On the first Vulkan device; skipped without one. */
#include "base/base.h"
#include "faults/every.h"
#include "graph/graph.h"
#include "support.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifdef HK_WITH_VULKAN
#include <volk.h>

enum { CHECKPOINT = 2, STEPS = 4, RESULT_LOST = 2 /* the variant that is VK_ERROR_DEVICE_LOST where a call has it */ };

static const char *folder;
static bool all_right = true;

static void complain(const char *what, long n) {
    fprintf(stderr, "FAILED: %s (call %ld): %s\n", what, n, hk_error_message());
    all_right = false;
}

/* ---- One training ---- */

struct training {
    struct hk_device *device;
    struct hk_text *text;
    struct hk_trainer *trainer;
};

static void training_close(struct training *t) {
    hk_trainer_destroy(&t->trainer);
    hk_text_destroy(&t->text);
    hk_device_destroy(&t->device);
}

static hk_status training_open(struct training *t, const char *device) {
    char path[300];
    const struct job job = {.rich = false};
    const struct hk_trainer_params how = job_params(&job);
    snprintf(path, sizeof path, "%s/text.txt", folder);
    *t = (struct training){0};
    t->device = hk_device_open(&(struct hk_device_params){.name = device, .threads = 1, .cache_dir = ""});
    if (t->device) t->text = hk_text_open(path, NULL);
    if (t->text) t->trainer = hk_trainer_create(t->device, &how);
    return t->trainer ? HK_OK : hk_error_status();
}

static uint64_t training_bits(struct training *t, hk_status *status) {
    const uint64_t model = job_hash_model(hk_trainer_model(t->trainer), status);
    return model ^ (job_hash_optimizer(t->trainer, status) << 1);
}

/* ---- The others ---- */

enum { CPU_STEPS = 400 };

/* Trains on the CPU, again and again, until told to stop; each time must end with the same bits. */
struct background {
    pthread_t id;
    atomic_bool stop;
    int times;
    bool right;
};

static void *train_in_background(void *context) {
    struct background *b = context;
    uint64_t first = 0;
    b->right = true;
    while (b->right && (!b->stop || b->times < 2)) {
        struct training t;
        hk_status status = training_open(&t, "cpu");
        float loss[2];
        for (int i = 1; i <= CPU_STEPS && !status; i++) {
            status = job_train(t.trainer, t.text, i, i);
            if (!status) status = hk_trainer_result(t.trainer, &loss[0], &loss[1]);
        }
        uint64_t bits;
        memcpy(&bits, loss, sizeof bits);
        training_close(&t);
        b->right = !status && (b->times == 0 || bits == first);
        first = bits;
        b->times++;
    }
    return NULL;
}

/* ---- Losing a device ---- */

static hk_status save(struct training *t, const char *run) {
    const struct job job = {.rich = false};
    const struct hk_trainer_params how = job_params(&job);
    const struct hk_run_state state = {.step = CHECKPOINT, .steps = STEPS, .seed = 3};
    return hk_run_save(run, &how.model, hk_trainer_model(t->trainer), hk_trainer_optimizer(t->trainer), &state);
}

/* Trains, and loses the device at call n after the checkpoint; then as if nothing had been. *fired: whether there is such a
   call, *lost: whether it could be lost there. */
static uint64_t lose_and_recover(long n, bool *fired, bool *lost, hk_status *status) {
    struct training t;
    char run[300];
    snprintf(run, sizeof run, "%s/run", folder);
    job_clean(folder);
    *status = training_open(&t, "vulkan:0");
    if (!*status) *status = job_train(t.trainer, t.text, 1, CHECKPOINT);
    if (!*status) *status = save(&t, run);
    if (*status) return training_close(&t), 0;
    fault_arm(FAULT_VULKAN, n, RESULT_LOST);
    hk_status failed = job_train(t.trainer, t.text, CHECKPOINT + 1, STEPS);
    uint64_t bits = training_bits(&t, &failed);
    const struct fault_report *r = fault_disarm();
    *fired = r->fired;
    *lost = r->fired && r->result == VK_ERROR_DEVICE_LOST && failed;
    if (*lost && (failed != HK_ERROR_DEVICE_LOST || !strstr(hk_error_message(), "lost"))) complain("another status", n);
    if (*lost && job_train(t.trainer, t.text, 1, 1) != HK_ERROR_DEVICE_LOST) complain("a lost device goes on", n);
    if (*lost) {
        struct hk_run_state state;
        training_close(&t);
        *status = training_open(&t, "vulkan:0");
        if (!*status) *status = hk_run_load(run, hk_trainer_model(t.trainer), hk_trainer_optimizer(t.trainer), &state);
        if (!*status) *status = job_train(t.trainer, t.text, (int)state.step + 1, STEPS);
        if (!*status) bits = training_bits(&t, status);
    }
    training_close(&t);
    return bits;
}

static void losses_are_recovered_from(void) {
    bool fired, lost;
    int losses = 0;
    hk_status status;
    struct training other;
    struct background cpu = {.stop = false};
    if (pthread_create(&cpu.id, NULL, train_in_background, &cpu)) exit(1);
    const uint64_t right = lose_and_recover(0, &fired, &lost, &status);
    if (status) complain("an undisturbed run", 0);
    if (training_open(&other, "vulkan:0") || job_train(other.trainer, other.text, 1, CHECKPOINT)) complain("another device", 0);
    for (long n = 1; all_right; n++) {
        const uint64_t bits = lose_and_recover(n, &fired, &lost, &status);
        if (!fired) break;
        losses += lost;
        if (lost && status) complain("no recovery", n);
        else if (lost && bits != right) complain("other bits", n);
    }
    status = job_train(other.trainer, other.text, CHECKPOINT + 1, STEPS);
    if (training_bits(&other, &status) != right || status) complain("the other device has other bits", 0);
    training_close(&other);
    cpu.stop = true;
    pthread_join(cpu.id, NULL);
    if (!cpu.right) complain("the CPU was disturbed", 0);
    if (losses < 3) complain("too few losses to say anything", losses);
    printf("%d losses recovered from, meanwhile %d trainings on the CPU\n", losses, cpu.times);
}

/* ---- Writes whose submission fails ---- */

/* y = x + 1 on tensors that the host cannot map, so that writes wait for the next submission. Every call from the write's
   acceptance on may fail: a run that then succeeds has seen the write, or the device is lost. */
static bool write_and_run(struct hk_device *device, long n, bool *fired) {
    float sent[64], got[64] = {0};
    struct hk_tensor *x = hk_tensor_create(device, HK_F32, HK_SHAPE(64)), *y = hk_tensor_create(device, HK_F32, HK_SHAPE(64));
    struct hk_graph *graph = hk_graph_create();
    if (!x || !y || !graph) exit(1);
    hk_store(y, hk_affine(hk_leaf(graph, x), 1, 1));
    struct hk_program *program = hk_compile(device, graph, NULL);
    x->storage->buffer->host = NULL;
    for (int i = 0; i < 64; i++) sent[i] = (float)i;
    hk_status status = program ? hk_tensor_write(x, sent, sizeof sent) : hk_error_status();
    if (status) exit(1);
    fault_arm(FAULT_VULKAN, n, 0);
    hk_status first = hk_program_run(program);
    *fired = fault_disarm()->fired;
    if (*fired && first) first = hk_program_run(program); /* who is out of memory may try again */
    if (!first) first = hk_tensor_read(y, got, sizeof got);
    bool right = first == HK_ERROR_DEVICE_LOST || !first;
    for (int i = 0; !first && i < 64; i++) right = right && got[i] == sent[i] + 1;
    hk_program_destroy(&program);
    hk_graph_destroy(&graph);
    hk_tensor_destroy(&x);
    hk_tensor_destroy(&y);
    return right;
}

static void accepted_writes_arrive(void) {
    bool fired = true;
    int n = 0;
    while (fired) {
        struct hk_device *device = hk_device_open(&(struct hk_device_params){.name = "vulkan:0", .cache_dir = ""});
        if (!write_and_run(device, ++n, &fired)) complain("a write that was accepted did not arrive", n);
        hk_device_destroy(&device);
    }
    if (n < 3) complain("no call of a run failed", n);
    printf("writes arrive whichever of %d calls fails\n", n - 1);
}

int main(void) {
    int count = 0;
    faults_install();
    if (hk_device_list(NULL, 0, &count) || count < 2) {
        printf("no Vulkan device on this machine\n");
        return TEST_SKIPPED;
    }
    folder = fault_folder_make();
    accepted_writes_arrive();
    losses_are_recovered_from();
    fault_folder_remove();
    return all_right ? 0 : 1;
}

#else

int main(void) {
    printf("built without Vulkan\n");
    return TEST_SKIPPED;
}

#endif
