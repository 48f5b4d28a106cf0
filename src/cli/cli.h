/* What the commands of the program share: exit statuses, options, devices, models, output. */
#ifndef HK_CLI_CLI_H
#define HK_CLI_CLI_H

#include <cjson/cJSON.h>
#include <hekla/hekla.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

#define COUNT_OF(array) ((int)(sizeof(array) / sizeof *(array)))

int command_devices(int argc, char **argv);
int command_train(int argc, char **argv);
int command_generate(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_tune(int argc, char **argv);

/* ---- Options: one table parses and explains them ---- */

enum option_kind {
    OPTION_FLAG,   /* bool */
    OPTION_WHOLE,  /* int64_t */
    OPTION_NUMBER, /* double */
    OPTION_TEXT    /* const char * */
};
struct option_row {
    const char *name; /* without the dashes */
    enum option_kind kind;
    void *value;      /* holds the default, then what was given */
    double low, high; /* what a number may be */
    const char *argument, *help;
    bool given;
};
struct command_line {
    const char *command, *usage, *about; /* "train", "--data FILE [options]", "Trains ..." */
    struct option_row *rows;
    int n_rows;
    const char **operand; /* where the one operand goes; NULL: the command takes none */
    const char *operand_name;
};
/* False: the command is over, with the status given (help was asked for, or the usage is wrong and that was said). */
bool options_parse(const struct command_line *line, int argc, char **argv, int *status);
struct option_row *options_find(const struct command_line *line, const char *name);
bool options_given(const struct command_line *line, const char *name);

/* Rows that several commands have. */
#define OPTION_DEVICE(variable)                                                                                        \
    {                                                                                                                  \
        .name = "device", .kind = OPTION_TEXT, .value = (variable), .argument = "NAME",                                \
        .help = "auto, cpu, vulkan, vulkan:N or vulkan:PART-OF-NAME (default auto)"                                    \
    }
#define OPTION_PROFILE(variable)                                                                                       \
    {                                                                                                                  \
        .name = "profile", .kind = OPTION_TEXT, .value = (variable), .argument = "FILE",                               \
        .help = "write a trace that Perfetto and chrome://tracing open"                                                \
    }
#define OPTION_PRECISION(variable)                                                                                     \
    {                                                                                                                  \
        .name = "precision", .kind = OPTION_TEXT, .value = (variable), .argument = "NAME",                             \
        .help = "what matrices are multiplied in: f32, bf16 or f16 (default f32)"                                      \
    }
#define OPTION_JSON(variable)                                                                                          \
    { .name = "json", .kind = OPTION_FLAG, .value = (variable), .help = "print JSON" }

/* The dtype that --precision names; -1: none. fail_precision says so. */
int precision_of(const char *name);
int fail_precision(const char *command, const char *name);

/* ---- Messages: "hekla: ..." on stderr. They return the exit status. ---- */

int fail_usage(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
int fail_with(const char *format, ...) __attribute__((format(printf, 1, 2)));
int fail_library(void); /* the library's message */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- Output ---- */

double now_seconds(void);
void json_print_line(cJSON *object);  /* on stdout, flushed; deletes it */
double rounded(double x, int digits); /* after the decimal point */
/* "1.5 GB" */
const char *bytes_text(uint64_t bytes, char *text, size_t size);
bool output_ok(void); /* flushes stdout; false, and says so, where that fails */

/* ---- Devices and models ---- */

/* Opens the device and says which one it is. NULL: the message was printed. */
struct hk_device *open_device(const char *name, bool profile);
struct hk_device *open_device_as(const struct hk_device_params *params);
/* Writes the trace where a file was asked for. */
int write_profile(struct hk_device *device, const char *path);

/* A trained model for use. */
struct loaded_model {
    struct hk_device *device;
    struct hk_params *params;
    struct hk_model_config config;
};
int model_load(struct loaded_model *model, const char *folder, const char *device);
void model_unload(struct loaded_model *model);

#endif
