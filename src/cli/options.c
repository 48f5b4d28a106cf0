/* Options by table, on getopt_long. */
#include "cli.h"
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROWS 40

static void print_row(const struct option_row *row) {
    char left[64];
    snprintf(left, sizeof left, "--%s%s%s", row->name, row->argument ? " " : "", row->argument ? row->argument : "");
    printf("  %-22s %s\n", left, row->help);
}

static void print_help(const struct command_line *line) {
    printf("Usage: hekla %s %s\n\n%s\n\n", line->command, line->usage, line->about);
    for (int i = 0; i < line->n_rows; i++) print_row(&line->rows[i]);
    printf("  %-22s %s\n", "--help", "print this");
}

static bool parse_whole(const struct option_row *row, const char *text) {
    char *end;
    errno = 0;
    const long long x = strtoll(text, &end, 10);
    if (end == text || *end || errno || (double)x < row->low || (double)x > row->high) return false;
    *(int64_t *)row->value = x;
    return true;
}

static bool parse_number(const struct option_row *row, const char *text) {
    char *end;
    const double x = strtod(text, &end);
    if (end == text || *end || !(x >= row->low && x <= row->high)) return false;
    *(double *)row->value = x;
    return true;
}

/* Takes an option's argument; false: said what it should be. */
static bool take(const struct command_line *line, struct option_row *row, const char *text) {
    row->given = true;
    switch (row->kind) {
    case OPTION_FLAG:
        *(bool *)row->value = true;
        return true;
    case OPTION_TEXT:
        *(const char **)row->value = text;
        return true;
    case OPTION_WHOLE:
        if (parse_whole(row, text)) return true;
        fail_usage(line->command, "--%s must be a whole number from %.0f to %.0f, not \"%s\"", row->name, row->low,
                   row->high, text);
        return false;
    case OPTION_NUMBER:
        if (parse_number(row, text)) return true;
        fail_usage(line->command, "--%s must be a number from %g to %g, not \"%s\"", row->name, row->low, row->high,
                   text);
        return false;
    }
    return false;
}

static bool take_operands(const struct command_line *line, int argc, char **argv) {
    const int n = argc - optind, want = line->operand ? 1 : 0;
    if (n < want) {
        fail_usage(line->command, "%s is missing", line->operand_name);
        return false;
    }
    if (n > want) {
        fail_usage(line->command, "\"%s\" is one word too many", argv[optind + want]);
        return false;
    }
    if (want) *line->operand = argv[optind];
    return true;
}

bool options_parse(const struct command_line *line, int argc, char **argv, int *status) {
    struct option options[MAX_ROWS + 2] = {{0}};
    for (int i = 0; i < line->n_rows && i < MAX_ROWS; i++)
        options[i] = (struct option){
            line->rows[i].name, line->rows[i].kind == OPTION_FLAG ? no_argument : required_argument, NULL, 256 + i};
    options[line->n_rows] = (struct option){"help", no_argument, NULL, 'h'};
    optind = 1, opterr = 0;
    *status = EXIT_USAGE;
    for (int c; (c = getopt_long(argc, argv, ":h", options, NULL)) != -1;) {
        if (c == 'h') {
            print_help(line);
            *status = EXIT_OK;
            return false;
        }
        if (c == '?' && optopt && optopt < 256) { /* of "-xy" too, which getopt has not left yet */
            fail_usage(line->command, "there is no option -%c", optopt);
            return false;
        }
        if (c == ':' || c == '?') {
            fail_usage(line->command, c == ':' ? "%s needs an argument" : "there is no option %s", argv[optind - 1]);
            return false;
        }
        if (!take(line, &line->rows[c - 256], optarg)) return false;
    }
    return take_operands(line, argc, argv);
}

struct option_row *options_find(const struct command_line *line, const char *name) {
    for (int i = 0; i < line->n_rows; i++)
        if (!strcmp(line->rows[i].name, name)) return &line->rows[i];
    return NULL;
}

bool options_given(const struct command_line *line, const char *name) {
    const struct option_row *row = options_find(line, name);
    return row && row->given;
}

int precision_of(const char *name) {
    static const enum hk_dtype all[] = {HK_F32, HK_BF16, HK_F16};
    for (int i = 0; i < COUNT_OF(all); i++)
        if (!strcmp(name, hk_dtype_name(all[i]))) return (int)all[i];
    return -1;
}

int fail_precision(const char *command, const char *name) {
    return fail_usage(command, "--precision must be f32, bf16 or f16, not \"%s\"", name);
}
