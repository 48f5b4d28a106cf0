/* report.md */
#include "lab.h"
#include "report.h"
#include <string.h>

static const char introduction[] =
    "# What drivers make of the shaders\n\n"
    "Made by `sh tests/lab/run.sh --accept`, from Mesa's compilers, without the GPUs. Numbers are the drivers' own: those of\n"
    "one driver compare, those of two do not. [report.json](report.json) has a row for every pipeline; here is the worst of\n"
    "each shader's, as training steps, generation and the ops' test cases make them.\n\n"
    "- registers: 32 bits an invocation (RADV, NVK), four times that (Turnip), half of that (Honeykrisp)\n"
    "- occupancy: subgroups a SIMD (RADV), a processor (NVK, Turnip), invocations (Honeykrisp) that run at once\n"
    "- latency: cycles (RADV), cycles of waiting (Turnip)\n"
    "- cycles: busy cycles of one subgroup (RADV: inverse throughput), of instructions whose time is fixed (NVK), of the ALU\n"
    "  (Honeykrisp). None of them knows how often a loop turns.\n"
    "- loop: multiply-adds, of matrices also, among the instructions of the loop that has most of them, in per cent, by the\n"
    "  driver's assembly (tests/lab/loop.h states the rule); -: there is no such loop, or Honeykrisp, which shows none\n"
    "- host time: of the processor, the library and the driver together, for a whole step from its tokens to its loss. The\n"
    "  kernel's share is missing, since it is not asked. It is the time that was measured when the report was made, and stays\n"
    "  where a later run takes between half and twice of it.\n\n";

static const char *text_of(const cJSON *object, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text ? text : "";
}

static double number_of(const cJSON *object, const char *name) {
    return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

/* ---- Steps ---- */

static void write_steps(FILE *file, const cJSON *devices) {
    const cJSON *device, *drive;
    fprintf(file, "## Training steps\n\n| device | model | submits | dispatches | barriers | host time, µs |\n");
    fprintf(file, "|---|---|---:|---:|---:|---:|\n");
    cJSON_ArrayForEach(device, devices)
        cJSON_ArrayForEach(drive, cJSON_GetObjectItemCaseSensitive(device, "drives"))
            fprintf(file, "| %s | %s | %g | %g | %g | %.1f |\n", text_of(device, "device"), text_of(drive, "model"),
                    number_of(drive, "submits"), number_of(drive, "dispatches"), number_of(drive, "barriers"),
                    number_of(drive, "host_us"));
}

/* ---- Shaders ---- */

struct worst {
    const char *shader;
    int count;
    double value[LAB_NUMBERS];
};

static void add_row(struct worst *w, const cJSON *row) {
    const cJSON *number = row->child->next->next;
    for (int i = 0; i < LAB_NUMBERS; i++) {
        const double x = number ? number->valuedouble : -1;
        const bool least = i == VK_STATISTIC_OCCUPANCY || (i == LAB_LOOP && x >= 0 && w->value[i] >= 0);
        if (!w->count || (least ? x < w->value[i] : x > w->value[i])) w->value[i] = x;
        if (number) number = number->next;
    }
    w->count++;
}

static void write_row(FILE *file, const struct worst *w) {
    fprintf(file, "| %s | %d |", w->shader, w->count);
    for (int i = 0; i < LAB_NUMBERS; i++) {
        if (w->value[i] < 0) fprintf(file, i == LAB_LOOP ? " - |" : " |");
        else fprintf(file, " %.0f |", w->value[i]);
    }
    fprintf(file, "\n");
}

static void write_shaders(FILE *file, const cJSON *device) {
    const cJSON *pipelines = cJSON_GetObjectItemCaseSensitive(device, "pipelines"), *row;
    struct worst worst = {0};
    fprintf(file, "\n## %s: %s, %s\n\n", text_of(device, "device"), text_of(device, "name"), text_of(device, "driver"));
    fprintf(file, "| shader | pipelines | registers | scalar | spills | scratch | shared | instructions | occupancy | "
                  "latency | cycles | loop |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    cJSON_ArrayForEach(row, pipelines) {
        const char *shader = cJSON_GetStringValue(row->child);
        if (worst.count && strcmp(worst.shader, shader)) {
            write_row(file, &worst);
            worst.count = 0;
        }
        worst.shader = shader;
        add_row(&worst, row);
    }
    if (worst.count) write_row(file, &worst);
}

bool report_write_text(const char *path, const cJSON *devices) {
    FILE *file = fopen(path, "w");
    const cJSON *device;
    if (!file) return false;
    fputs(introduction, file);
    write_steps(file, devices);
    cJSON_ArrayForEach(device, devices) write_shaders(file, device);
    return !fclose(file);
}
