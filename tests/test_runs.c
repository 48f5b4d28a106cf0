/* Run folders: what is saved loads to the last bit, also after a kill at every stage of a save, and what is no run, or
   another's, is refused and left alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "io_files.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct hk_model_config small = {HK_GPT2, 256, 8, 1, 2, 2, 8, 32, 1e-5f, 0, 0};

struct model {
    struct hk_device *device;
    struct hk_params *params;
    struct hk_optimizer *optimizer;
};

static struct model make_model(enum hk_optimizer_kind kind) {
    struct model m = {.device = hk_device_open(&(struct hk_device_params){.name = "cpu", .threads = 1})};
    assert_non_null(m.device);
    m.params = hk_params_create(m.device);
    assert_int_equal(hk_model_declare(m.params, &small), HK_OK);
    assert_int_equal(hk_params_allocate(m.params, 5), HK_OK);
    m.optimizer = hk_optimizer_create(m.params, &(struct hk_optimizer_params){.kind = kind});
    assert_non_null(m.optimizer);
    return m;
}

static void destroy_model(struct model *m) {
    hk_optimizer_destroy(&m->optimizer);
    hk_params_destroy(&m->params);
    hk_device_destroy(&m->device);
}

static void fill(struct hk_tensor *tensor, float value) {
    if (!tensor) return;
    const int64_t count = hk_tensor_elements(tensor);
    float *data = malloc((size_t)count * sizeof *data);
    for (int64_t i = 0; i < count; i++) data[i] = value + (float)i;
    assert_int_equal(hk_tensor_write(tensor, data, (size_t)count * sizeof *data), HK_OK);
    free(data);
}

static void assert_filled(struct hk_tensor *tensor, float value) {
    if (!tensor) return;
    const int64_t count = hk_tensor_elements(tensor);
    float *data = malloc((size_t)count * sizeof *data);
    assert_int_equal(hk_tensor_read(tensor, data, (size_t)count * sizeof *data), HK_OK);
    for (int64_t i = 0; i < count; i++) assert_true(data[i] == value + (float)i);
    free(data);
}

/* Parameter i's part of moment m; the caller destroys it. */
static struct hk_tensor *moment_of(struct model *m, int moment, int i) {
    int64_t first;
    const int slab = hk_params_place(m->params, i, &first);
    struct hk_tensor *all = hk_optimizer_moment(m->optimizer, moment, slab);
    return all ? hk_tensor_view(all, first, hk_tensor_shape(hk_params_tensor(m->params, i))) : NULL;
}

/* A model whose every number tells the step. */
static void set_model(struct model *m, int64_t step) {
    for (int i = 0; i < hk_params_count(m->params); i++) {
        fill(hk_params_tensor(m->params, i), (float)(step + i));
        for (int moment = 0; moment < 2; moment++) {
            struct hk_tensor *part = moment_of(m, moment, i);
            fill(part, (float)(step + i) + 0.25f * (float)(moment + 1));
            hk_tensor_destroy(&part);
        }
    }
    hk_optimizer_set_step(m->optimizer, step);
}

static void assert_model(struct model *m, int64_t step, bool optimizer) {
    for (int i = 0; i < hk_params_count(m->params); i++) {
        assert_filled(hk_params_tensor(m->params, i), (float)(step + i));
        for (int moment = 0; moment < 2 && optimizer; moment++) {
            struct hk_tensor *part = moment_of(m, moment, i);
            assert_filled(part, (float)(step + i) + 0.25f * (float)(moment + 1));
            hk_tensor_destroy(&part);
        }
    }
    if (optimizer) assert_int_equal(hk_optimizer_step(m->optimizer), step);
}

static hk_status save_step(struct model *m, const char *name, int64_t step) {
    const struct hk_run_state state = {
        .step = step, .steps = 1000, .seed = UINT64_MAX, .loss = NAN, .held_out_loss = 1.5};
    set_model(m, step);
    return hk_run_save(io_path(name), &small, m->params, m->optimizer, &state);
}

/* Loads as who resumes does, into a model that held something else. */
static void assert_loads(const char *name, int64_t step) {
    struct model m = make_model(HK_ADAMW);
    struct hk_run_state state;
    set_model(&m, 999);
    assert_int_equal(hk_run_load(io_path(name), m.params, NULL, NULL), HK_OK);
    assert_model(&m, step, false);
    set_model(&m, 999);
    if (hk_run_load(io_path(name), m.params, m.optimizer, &state) != HK_OK) fail_msg("%s", hk_error_message());
    assert_int_equal(state.step, step);
    assert_model(&m, step, true);
    destroy_model(&m);
}

static void runs_read_back(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    struct hk_run_state state = {
        .step = 3,
        .steps = 0,
        .minutes = 2.5,
        .seed = UINT64_MAX - 1,
        .seconds = 0.1 + 0.2,
        .loss = 1.0 / 3,
        .held_out_loss = NAN,
        .batch = 12,
        .length = 8,
        .accumulate = 2,
        .evaluate_every = 50,
        .schedule = {HK_SCHEDULE_COSINE, 1e-3f / 3, 1e-4f, 100, 5000}, /* to its last bit */
        .optimizer =
            {.kind = HK_ADAMW, .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .weight_decay = 0.1f, .clip = 1},
        .data_hash = UINT64_MAX,
        .data = "/some/where \"else\""};
    struct hk_run_state read;
    struct hk_model_config config;
    set_model(&m, 3);
    assert_false(hk_run_exists(io_path("round")));
    assert_int_equal(hk_run_save(io_path("round"), &small, m.params, m.optimizer, &state), HK_OK);
    assert_true(hk_run_exists(io_path("round")));
    assert_loads("round", 3);
    assert_int_equal(hk_run_load_config(io_path("round"), &config), HK_OK);
    io_expect_config(&config, &small);
    assert_int_equal(hk_run_load_state(io_path("round"), &read), HK_OK);
    assert_true(isnan(read.held_out_loss));
    read.held_out_loss = state.held_out_loss = 0;
    assert_int_equal(read.step, state.step);
    assert_true(fabs(read.seconds - state.seconds) < 1e-12 && fabs(read.loss - state.loss) < 1e-12);
    assert_true(read.minutes == state.minutes && read.steps == state.steps &&
                read.evaluate_every == state.evaluate_every);
    assert_true(read.batch == state.batch && read.length == state.length && read.accumulate == state.accumulate);
    assert_true(read.seed == state.seed && read.data_hash == state.data_hash);
    assert_string_equal(read.data, state.data);
    assert_memory_equal(&read.schedule, &state.schedule, sizeof read.schedule);
    assert_memory_equal(&read.optimizer, &state.optimizer, sizeof read.optimizer);
    destroy_model(&m);
}

/* As GPT-2's byte-level tokenizer writes bytes: those that print in Latin-1 as they are, the others from U+0100 on. */
static void tokenizers_have_the_characters_of_gpt2(void **unused) {
    (void)unused;
    struct model m = make_model(HK_SGD);
    assert_int_equal(save_step(&m, "tokens", 1), HK_OK);
    size_t bytes;
    char *text = io_read(io_path("tokens/tokenizer.json"), &bytes);
    static const char *const characters[] = {"\"\u0100\":0,",   "\"\u0120\":32,",  "\"!\":33,",       "\"~\":126,",
                                             "\"\u0121\":127,", "\"\u0142\":160,", "\"\u00a1\":161,", "\"\u00ac\":172,",
                                             "\"\u0143\":173,", "\"\u00ae\":174,", "\"\u00ff\":255}"};
    for (int i = 0; i < COUNT(characters); i++)
        if (!strstr(text, characters[i])) fail_msg("tokenizer.json lacks %s", characters[i]);
    free(text);
    destroy_model(&m);
}

/* The optimizer may have taken more steps than the run, or fewer. */
static void an_optimizer_goes_on_with_its_own_step(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    struct hk_run_state state = {.step = 3};
    set_model(&m, 7);
    assert_int_equal(hk_run_save(io_path("ahead"), &small, m.params, m.optimizer, &state), HK_OK);
    set_model(&m, 999);
    assert_int_equal(hk_run_load(io_path("ahead"), m.params, m.optimizer, &state), HK_OK);
    assert_int_equal(state.step, 3);
    assert_model(&m, 7, true);
    destroy_model(&m);
}

static void the_same_state_gives_the_same_file(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    size_t first_bytes, second_bytes;
    assert_int_equal(save_step(&m, "once", 10), HK_OK);
    assert_int_equal(save_step(&m, "twice", 5), HK_OK);
    assert_int_equal(save_step(&m, "twice", 10), HK_OK);
    char *first = io_read(io_path("once/model.safetensors"), &first_bytes);
    char *second = io_read(io_path("twice/model.safetensors"), &second_bytes);
    assert_int_equal(first_bytes, second_bytes);
    assert_memory_equal(first, second, first_bytes);
    free(first);
    free(second);
    destroy_model(&m);
}

static void copy_file(const char *from, const char *to, size_t most) {
    size_t bytes;
    char *data = io_read(from, &bytes);
    io_write(to, data, bytes < most ? bytes : most);
    free(data);
}

static void place(const char *to, const char *from_folder, const char *name, const char *suffix, size_t most) {
    char from[96], target[128];
    snprintf(from, sizeof from, "%s/%s", from_folder, name);
    snprintf(target, sizeof target, "%s/%s%s", to, name, suffix);
    copy_file(io_path(from), io_path(target), most);
}

#define MODEL "model.safetensors"
#define MOMENTS "optimizer.safetensors"

static void a_run_loads_from_every_stage_of_a_save(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    assert_int_equal(save_step(&m, "old", 10), HK_OK);
    assert_int_equal(save_step(&m, "new", 20), HK_OK);
    for (int stage = 0; stage <= 8; stage++) {
        char name[32];
        snprintf(name, sizeof name, "stage%d", stage);
        assert_int_equal(mkdir(io_path(name), 0755), 0);
        place(name, "old", "config.json", "", SIZE_MAX);
        place(name, stage >= 6 ? "new" : "old", "state.json", "", SIZE_MAX);
        place(name, stage >= 7 ? "new" : "old", MODEL, "", SIZE_MAX);
        place(name, stage >= 8 ? "new" : "old", MOMENTS, "", SIZE_MAX);
        if (stage == 0) place(name, "new", MODEL, ".next.part", 100);
        if (stage == 1) place(name, "new", MODEL, ".next", 100); /* cut, as by a file system that lost its end */
        if (stage >= 2 && stage < 7) place(name, "new", MODEL, ".next", SIZE_MAX);
        if (stage == 3) place(name, "new", MOMENTS, ".next.part", 100);
        if (stage >= 4 && stage < 8) place(name, "new", MOMENTS, ".next", SIZE_MAX);
        if (stage == 5) place(name, "new", "state.json", ".part", 20);
        assert_loads(name, stage >= 6 ? 20 : 10);
        assert_loads(name, stage >= 6 ? 20 : 10); /* loading has changed nothing that counts */
        assert_int_equal(save_step(&m, name, 30), HK_OK);
        assert_loads(name, 30);
    }
    destroy_model(&m);
}

static void a_first_save_that_was_cut_off_is_no_run(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    assert_int_equal(save_step(&m, "source", 10), HK_OK);
    assert_int_equal(mkdir(io_path("first"), 0755), 0);
    place("first", "source", "config.json", "", SIZE_MAX);
    place("first", "source", MODEL, ".next", SIZE_MAX);
    assert_false(hk_run_exists(io_path("first")));
    assert_int_not_equal(hk_run_load(io_path("first"), m.params, NULL, NULL), HK_OK);
    assert_int_equal(save_step(&m, "first", 1), HK_OK);
    assert_loads("first", 1);
    place("first", "source", "state.json", "", SIZE_MAX); /* says 10; the files say 1 */
    assert_int_equal(hk_run_load(io_path("first"), m.params, NULL, NULL), HK_ERROR_FORMAT);
    io_expect_message("is of step 1, state.json of step 10");
    destroy_model(&m);
}

/* Neither replaced by a save nor removed after one that failed. */
static void a_config_that_is_of_no_run_stays_its_owners(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    const char theirs[] = "{\"port\": 80}";
    assert_int_equal(mkdir(io_path("theirs"), 0755), 0);
    io_write(io_path("theirs/config.json"), theirs, strlen(theirs));
    assert_int_equal(save_step(&m, "theirs", 1), HK_ERROR_FORMAT);
    io_expect_message("choose another folder");
    size_t bytes;
    char *text = io_read(io_path("theirs/config.json"), &bytes);
    assert_string_equal(text, theirs);
    assert_int_not_equal(access(io_path("theirs/tokenizer.json"), F_OK), 0);
    free(text);
    destroy_model(&m);
}

static void a_save_without_room_leaves_the_old_state(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    struct rlimit old, tight;
    assert_int_equal(save_step(&m, "full", 10), HK_OK);
    struct stat model_info, moments_info;
    assert_int_equal(stat(io_path("full/" MODEL), &model_info), 0);
    assert_int_equal(stat(io_path("full/" MOMENTS), &moments_info), 0);
    getrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_IGN);
    /* no room for a few bytes, for the model, for the moments alone */
    const off_t limits[] = {4, model_info.st_size - 1, moments_info.st_size - 1};
    for (int i = 0; i < COUNT(limits); i++) {
        tight = old, tight.rlim_cur = (rlim_t)limits[i];
        setrlimit(RLIMIT_FSIZE, &tight);
        const hk_status status = save_step(&m, "full", 20), fresh = save_step(&m, "fresh", 20);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(status, HK_ERROR_IO);
        io_expect_message("cannot write");
        assert_loads("full", 10);
        assert_int_not_equal(access(io_path("full/" MODEL ".next"), F_OK), 0);
        assert_int_not_equal(access(io_path("full/" MODEL ".next.part"), F_OK), 0);
        assert_int_not_equal(access(io_path("full/" MOMENTS ".next"), F_OK), 0);
        assert_int_not_equal(access(io_path("full/" MOMENTS ".next.part"), F_OK), 0);
        assert_int_equal(fresh, HK_ERROR_IO);
        assert_int_not_equal(access(io_path("fresh"), F_OK), 0); /* nothing half-written */
    }
    assert_int_equal(save_step(&m, "full", 20), HK_OK);
    assert_loads("full", 20);
    destroy_model(&m);
}

static void a_run_of_another_model_is_neither_overwritten_nor_loaded(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    assert_int_equal(save_step(&m, "taken", 1), HK_OK);
    struct hk_model_config other = small;
    other.width = 16;
    const struct hk_run_state state = {.step = 2};
    assert_int_equal(hk_run_save(io_path("taken"), &other, m.params, m.optimizer, &state), HK_ERROR_INVALID);
    io_expect_message("another model");
    struct hk_params *params = hk_params_create(m.device);
    assert_int_equal(hk_model_declare(params, &other), HK_OK);
    assert_int_equal(hk_params_allocate(params, 1), HK_OK);
    assert_int_equal(hk_run_load(io_path("taken"), params, NULL, NULL), HK_ERROR_FORMAT);
    io_expect_message("the model needs [");
    hk_params_destroy(&params);
    destroy_model(&m);
}

static void a_run_saved_without_optimizer_can_be_used_not_resumed(void **unused) {
    (void)unused;
    struct model m = make_model(HK_ADAMW);
    const struct hk_run_state state = {.step = 7};
    assert_int_equal(save_step(&m, "used", 6), HK_OK);
    set_model(&m, 7);
    assert_int_equal(hk_run_save(io_path("used"), &small, m.params, NULL, &state), HK_OK);
    set_model(&m, 999);
    assert_int_equal(hk_run_load(io_path("used"), m.params, NULL, NULL), HK_OK);
    assert_int_not_equal(access(io_path("used/" MOMENTS), F_OK), 0); /* those of step 6 are nobody's */
    assert_model(&m, 7, false);
    assert_int_not_equal(hk_run_load(io_path("used"), m.params, m.optimizer, NULL), HK_OK);
    io_expect_message("optimizer.safetensors");
    destroy_model(&m);
}

static void a_run_is_locked_until_it_is_released(void **unused) {
    (void)unused;
    struct hk_run_lock *lock = hk_run_lock(io_path("locked/deep"));
    assert_non_null(lock);
    assert_null(hk_run_lock(io_path("locked/deep")));
    io_expect_message("another process is training in");
    assert_int_equal(hk_error_status(), HK_ERROR_INVALID);
    hk_run_unlock(&lock);
    assert_null(lock);
    hk_run_unlock(&lock);
    lock = hk_run_lock(io_path("locked/deep"));
    assert_non_null(lock);
    hk_run_unlock(&lock);
    assert_null(hk_run_lock(""));
    io_write(io_path("locked/file"), "", 0);
    assert_null(hk_run_lock(io_path("locked/file/run")));
    io_expect_message("cannot make folder");
}

static void a_folder_of_hugging_face_loads(void **unused) {
    (void)unused;
    struct model m = make_model(HK_SGD);
    const int count = hk_params_count(m.params);
    struct hk_safetensors_entry *entries = calloc((size_t)count, sizeof *entries);
    char(*names)[160] = calloc((size_t)count, sizeof *names);
    for (int i = 0; i < count; i++) { /* bf16 and f16, with the prefix, all ones */
        const int64_t elements = hk_tensor_elements(hk_params_tensor(m.params, i));
        uint16_t *data = malloc((size_t)elements * 2);
        for (int64_t j = 0; j < elements; j++) data[j] = i % 2 ? hk_f16_from_f32(1) : hk_bf16_from_f32(1);
        snprintf(names[i], sizeof names[i], "transformer.%s", hk_params_name(m.params, i));
        entries[i] =
            (struct hk_safetensors_entry){names[i], i % 2 ? HK_F16 : HK_BF16,
                                          hk_tensor_shape(hk_params_tensor(m.params, i)), data, (size_t)elements * 2};
    }
    mkdir(io_path("hub"), 0755);
    assert_int_equal(hk_safetensors_write(io_path("hub/" MODEL), entries, count, NULL, NULL, 0), HK_OK);
    assert_int_equal(hk_run_load(io_path("hub"), m.params, NULL, NULL), HK_OK);
    for (int i = 0; i < count; i++) {
        float first;
        struct hk_tensor *view = hk_tensor_view(hk_params_tensor(m.params, i), 0, HK_SHAPE(1));
        assert_int_equal(hk_tensor_read(view, &first, sizeof first), HK_OK);
        assert_true(first == 1);
        hk_tensor_destroy(&view);
        free((void *)(uintptr_t)entries[i].data);
    }
    struct hk_run_state state;
    assert_int_equal(hk_run_load(io_path("hub"), m.params, NULL, &state), HK_ERROR_FORMAT);
    io_expect_message("no state.json");
    free(entries);
    free(names);
    destroy_model(&m);
}

static void folders_that_are_no_run_say_so(void **unused) {
    (void)unused;
    struct hk_model_config config;
    struct hk_run_state state;
    assert_int_equal(hk_run_load_config(io_path("absent"), &config), HK_ERROR_IO);
    io_expect_message("No such file or directory");
    mkdir(io_path("bare"), 0755);
    assert_int_equal(hk_run_load_config(io_path("bare"), &config), HK_ERROR_FORMAT);
    io_expect_message("is no run: it has no config.json");
    io_write(io_path("bare/state.json"), "{\"step\":-1}", 11);
    assert_int_equal(hk_run_load_state(io_path("bare"), &state), HK_ERROR_FORMAT);
    io_expect_message("bare/state.json: \"step\" is not a whole number");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_read_back),
        cmocka_unit_test(tokenizers_have_the_characters_of_gpt2),
        cmocka_unit_test(an_optimizer_goes_on_with_its_own_step),
        cmocka_unit_test(the_same_state_gives_the_same_file),
        cmocka_unit_test(a_run_loads_from_every_stage_of_a_save),
        cmocka_unit_test(a_first_save_that_was_cut_off_is_no_run),
        cmocka_unit_test(a_config_that_is_of_no_run_stays_its_owners),
        cmocka_unit_test(a_save_without_room_leaves_the_old_state),
        cmocka_unit_test(a_run_of_another_model_is_neither_overwritten_nor_loaded),
        cmocka_unit_test(a_run_saved_without_optimizer_can_be_used_not_resumed),
        cmocka_unit_test(a_run_is_locked_until_it_is_released),
        cmocka_unit_test(a_folder_of_hugging_face_loads),
        cmocka_unit_test(folders_that_are_no_run_say_so),
    };
    return cmocka_run_group_tests(tests, io_make_folder, io_remove_folder);
}
