/* hekla_lab DEVICE OUT.json      looks at the machine's Vulkan device (tests/lab/run.sh chooses which that is)
   hekla_lab names                prints the driver's own names of what it tells of pipelines
   hekla_lab choices DEVICE       prints what the device's compiler says of all kernels that could be chosen
   hekla_lab report OLD.json NEW.json... REPORT.md REPORT.json
                                  merges what was found on devices, and says what got worse since OLD.json */
#include "lab.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void lab_fail(struct lab *lab, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "FAILED on %s: ", lab->label);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    lab->failures++;
}

const char *lab_number_name(int number) { return number == LAB_LOOP ? "loop" : vk_statistic_names[number]; }

const char *lab_spec(const struct lab_pipeline *p) {
    static char text[16 * HK_MAX_SPEC];
    size_t length = 0;
    text[0] = 0;
    for (int i = 0; i < p->n_spec; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%u", i ? "," : "", p->spec[i]);
    return text;
}

static void print_remark(void *user, enum hk_log_level level, const char *message) {
    (void)user;
    if (level >= HK_LOG_WARNING) fprintf(stderr, "hekla: %s\n", message);
}

static int look_at(const char *label, const char *path) {
    struct lab lab = {.label = label};
    bool written = false;
    lab_drive(&lab); /* first: a shim has 4 GiB of memory, of which RADV on navi31 gives none back before the process ends */
    if (lab_compile(&lab)) {
        lab_check(&lab);
        lab_check_matrices(&lab);
        written = lab_write(&lab, path);
    }
    printf("%-10s %s: %d pipelines, %d failures\n", label, lab.info.name, lab.n_pipelines, lab.failures);
    free(lab.pipelines);
    return lab.failures || !written;
}

int main(int argc, char **argv) {
    hk_set_log(print_remark, NULL);
    unsetenv("HEKLA_VALIDATE"); /* validation is asked for where it is wanted, and not where time is measured */
    /* chains of ops written at run time: each text takes a fifth of a second, and its kernel has no name to report by */
    setenv("HEKLA_UNFUSED", "1", 1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 2 && !strcmp(argv[1], "names")) return lab_print_names(), 0;
    if (argc == 3 && !strcmp(argv[1], "choices")) return lab_print_choices(argv[2]);
    if (argc >= 6 && !strcmp(argv[1], "report")) return lab_report(argc - 2, argv + 2);
    if (argc == 3) return look_at(argv[1], argv[2]);
    fprintf(stderr, "usage: hekla_lab DEVICE OUT.json | names | choices DEVICE | report OLD.json NEW.json... REPORT.md REPORT.json\n");
    return 2;
}
