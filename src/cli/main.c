/* hekla: trains and runs language models from the command line. */
#include "cli.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

struct command {
    const char *name, *about;
    int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
    {"devices", "list the devices that Hekla can compute on, and measure them", command_devices},
    {"train", "train a language model on a text", command_train},
    {"generate", "write text with a trained model", command_generate},
    {"eval", "measure how well a trained model predicts a text", command_eval},
    {"bench", "time training steps and single ops", command_bench},
    {"tune", "measure which kernels are the fastest here", command_tune},
};

static void print_help(FILE *out) {
    fprintf(
        out,
        "Usage: hekla COMMAND [options]\n\nTrains and runs neural networks on any GPU with a Vulkan driver, and on the "
        "CPU.\n\nCommands:\n");
    for (int i = 0; i < COUNT_OF(commands); i++) fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].about);
    fprintf(out, "\nhekla COMMAND --help explains a command. hekla --version prints the version.\n"
                 "Exit status: 0 when all went well, 1 after an error, 2 for wrong usage.\n");
}

static void print_remark(void *user, enum hk_log_level level, const char *message) {
    (void)user;
    if (level >= HK_LOG_WARNING) note("%s", message);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return EXIT_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("hekla %s\n", hk_version());
        return EXIT_OK;
    }
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is then an error of write, like a full disk */
    hk_set_log(print_remark, NULL);
    for (int i = 0; i < COUNT_OF(commands); i++)
        if (!strcmp(argv[1], commands[i].name)) return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "hekla: there is no command \"%s\"; hekla --help lists them\n", argv[1]);
    return EXIT_USAGE;
}
