/* Trains a small GPT on the bytes of a text file for a while, then lets it write.

       02_gpt FILE [STEPS] */
#include <hekla/hekla.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 16, LENGTH = 64, VOCAB = 256, WRITE = 400 };

static int fail(void) {
    fprintf(stderr, "02_gpt: %s\n", hk_error_message());
    return 1;
}

static hk_status train(struct hk_trainer *trainer, const struct hk_text *text, int64_t steps) {
    const struct hk_schedule schedule = {HK_SCHEDULE_COSINE, 3e-3f, 3e-4f, steps / 20, steps};
    int32_t tokens[BATCH * (LENGTH + 1)];
    float loss, held_out;
    for (int64_t step = 1; step <= steps; step++) {
        hk_status status = hk_text_batch(text, BATCH, LENGTH, 1, (uint64_t)step, tokens);
        if (!status) status = hk_trainer_step(trainer, tokens, hk_schedule_at(&schedule, step));
        if (!status && (step % 50 == 0 || step == steps)) {
            status = hk_trainer_result(trainer, &loss, NULL);
            if (!status) status = hk_text_evaluation(text, BATCH, LENGTH, 0, 1, tokens);
            if (!status) status = hk_trainer_evaluate(trainer, tokens, &held_out);
            if (!status)
                printf("step %lld: loss %.3f, on text held out %.3f\n", (long long)step, (double)loss,
                       (double)held_out);
        }
        if (status) return status;
    }
    return HK_OK;
}

static hk_status write_text(struct hk_generator *generator) {
    const struct hk_sampling sampling = {.temperature = 0.8f, .top_p = 0.95f, .seed = 1};
    float logits[VOCAB];
    int32_t token = '\n';
    for (int i = 0; i < WRITE; i++) {
        const hk_status status = hk_generator_feed(generator, &token, 1, logits);
        if (status) return status;
        token = hk_sample(logits, VOCAB, &sampling, (uint64_t)i);
        putchar(token);
    }
    putchar('\n');
    return HK_OK;
}

int main(int argc, char **argv) {
    const struct hk_trainer_params how = {
        .model = {.family = HK_GPT2, .vocab = VOCAB, .context = LENGTH, .layers = 4, .heads = 4, .width = 128},
        .optimizer = {.kind = HK_ADAMW, .beta2 = 0.99f, .weight_decay = 0.1f, .clip = 1},
        .batch = BATCH,
        .length = LENGTH,
        .seed = 1};
    if (argc < 2) return fprintf(stderr, "usage: 02_gpt FILE [STEPS]\n"), 2;
    struct hk_device *device = hk_device_open(NULL);
    struct hk_text *text = device ? hk_text_open(argv[1], NULL) : NULL;
    struct hk_trainer *trainer = text ? hk_trainer_create(device, &how) : NULL;
    if (!trainer) return fail();
    printf("%s, %lld parameters\n", hk_device_get_info(device)->name,
           (long long)hk_params_elements(hk_trainer_model(trainer)));
    if (train(trainer, text, argc > 2 ? atoll(argv[2]) : 500)) return fail();
    struct hk_generator *generator = hk_generator_create(device, hk_trainer_model(trainer), &how.model);
    if (!generator || write_text(generator)) return fail();
    hk_generator_destroy(&generator);
    hk_trainer_destroy(&trainer);
    hk_text_destroy(&text);
    hk_device_destroy(&device);
    return 0;
}
