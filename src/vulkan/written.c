/* Shaders written at compile time of a program: each text is compiled once on a device, and kept on disk, by its
   content. A file that is not exactly what we wrote for this very text is compiled again and replaced. */
#include "vulkan/device.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct vk_written {
    struct vk_written *next;
    struct vk_shader shader; /* its words are of this allocation's own */
    char name[32];
    char *text; /* all of it, as compiled */
};

void vk_written_free(struct vk_device *device) {
    for (struct vk_written *w = device->pipelines.written, *next; w; w = next) {
        next = w->next;
        free((void *)(uintptr_t)w->shader.words);
        free(w->text);
        free(w);
    }
    device->pipelines.written = NULL;
}

/* ---- The whole text ---- */

struct text {
    char *data; /* NULL when out of memory */
    size_t length, size;
    uint64_t included; /* bit i: file i of the table */
};

static void append(struct text *t, const char *data, size_t bytes) {
    if (!t->data) return;
    if (t->length + bytes + 1 > t->size) {
        char *grown = realloc(t->data, t->size = 2 * (t->length + bytes + 1));
        if (!grown) free(t->data);
        if (!(t->data = grown)) return;
    }
    memcpy(t->data + t->length, data, bytes);
    t->data[t->length += bytes] = 0;
}

static void expand(struct text *t, const char *source);

static void include(struct text *t, const char *name, size_t length) {
    for (int i = 0; i < vk_glsl_files_count; i++) {
        const struct vk_glsl_file *file = &vk_glsl_files[i];
        if (strlen(file->name) != length || memcmp(file->name, name, length)) continue;
        if (!(t->included >> i & 1)) {
            t->included |= (uint64_t)1 << i;
            expand(t, file->text);
        }
        return;
    }
}

/* Each file that a line includes in the place of that line, once, without its own version: the first line of all says it. */
static void expand(struct text *t, const char *source) {
    static const char directive[] = "#include \"", version[] = "#version";
    while (*source) {
        const char *end = strchr(source, '\n');
        const size_t length = end ? (size_t)(end - source) + 1 : strlen(source);
        if (!strncmp(source, directive, strlen(directive))) {
            const char *name = source + strlen(directive);
            include(t, name, strcspn(name, "\""));
        } else if (t->length == 0 || strncmp(source, version, strlen(version))) {
            append(t, source, length);
        }
        source += length;
    }
}

/* ---- The cache on disk ---- */

struct header {
    char magic[8];
    uint64_t version, text_bytes, bytes, hash; /* of the SPIR-V, which follows the text */
};
enum { WRITTEN_VERSION = 1 };

static struct header make_header(size_t text_bytes, const void *words, size_t bytes) {
    return (struct header){"hkspirv", WRITTEN_VERSION, text_bytes, bytes, hk_hash(words, bytes, 0)};
}

static bool path_of(const struct vk_device *device, const struct vk_written *w, char *path, size_t size) {
    if (!device->pipelines.folder[0]) return false;
    snprintf(path, size, "%s/%s.spv", device->pipelines.folder, w->name);
    return true;
}

static bool load(const struct vk_device *device, struct vk_written *w) {
    char path[1024], *file = NULL;
    size_t size;
    const size_t text = strlen(w->text);
    uint32_t *words = NULL;
    if (!path_of(device, w, path, sizeof path) || access(path, R_OK) || hk_file_read(path, &file, &size)) return false;
    if (size > sizeof(struct header) + text) {
        const char *code = file + sizeof(struct header) + text;
        const size_t bytes = size - sizeof(struct header) - text;
        const struct header header = make_header(text, code, bytes);
        const bool same = !memcmp(file, &header, sizeof header) && !memcmp(file + sizeof header, w->text, text);
        words = same && bytes % 4 == 0 ? malloc(bytes) : NULL;
        if (words) memcpy(words, code, bytes);
        w->shader.bytes = bytes;
    }
    free(file);
    w->shader.words = words;
    if (!words) hk_remark(HK_LOG_INFO, "vulkan: %s is damaged and is made again", path);
    return words;
}

static void keep_on_disk(const struct vk_device *device, const struct vk_written *w) {
    char path[1024];
    const size_t text = strlen(w->text), bytes = sizeof(struct header) + text + w->shader.bytes;
    const struct header header = make_header(text, w->shader.words, w->shader.bytes);
    if (!path_of(device, w, path, sizeof path)) return;
    char *file = malloc(bytes);
    if (!file) {
        hk_remark(HK_LOG_WARNING, "vulkan: a shader is not cached: out of host memory");
        return;
    }
    memcpy(file, &header, sizeof header);
    memcpy(file + sizeof header, w->text, text);
    memcpy(file + sizeof header + text, w->shader.words, w->shader.bytes);
    if (hk_file_write(path, file, bytes))
        hk_remark(HK_LOG_WARNING, "vulkan: a shader is not cached: %s", hk_error_message());
    free(file);
}

/* ---- What recording calls ---- */

static hk_status make(struct vk_device *device, struct vk_written *w) {
    if (load(device, w)) return HK_OK;
    uint32_t *words;
    const hk_status status = vk_shaderc_compile(w->text, w->name, &words, &w->shader.bytes);
    if (status) return status;
    w->shader.words = words;
    keep_on_disk(device, w);
    return HK_OK;
}

static const struct vk_shader *find(const struct vk_device *device, const char *text) {
    for (const struct vk_written *w = device->pipelines.written; w; w = w->next)
        if (!strcmp(w->text, text)) return &w->shader;
    return NULL;
}

/* Takes the text over. */
static hk_status add(struct vk_device *device, char *text, const struct vk_shader **shader) {
    struct vk_written *w = calloc(1, sizeof *w);
    if (!w) {
        free(text);
        return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while writing a shader");
    }
    w->text = text;
    snprintf(w->name, sizeof w->name, "written-%016llx", (unsigned long long)hk_hash(text, strlen(text), 0));
    w->shader.name = w->name;
    const hk_status status = make(device, w);
    if (status) {
        free(w->text);
        free(w);
        return status;
    }
    w->next = device->pipelines.written;
    device->pipelines.written = w;
    *shader = &w->shader;
    return HK_OK;
}

hk_status vk_written_find(struct vk_device *device, const char *source, const struct vk_shader **shader) {
    struct text text = {.data = malloc(1 << 15), .size = 1 << 15};
    expand(&text, source);
    if (!text.data) return hk_fail(HK_ERROR_OUT_OF_MEMORY, "out of host memory while writing a shader");
    hk_status status = vk_lock(device);
    if (!status) {
        *shader = find(device, text.data);
        if (!*shader) {
            status = add(device, text.data, shader);
            text.data = NULL;
        }
        vk_unlock(device);
    }
    free(text.data);
    return status;
}

/* ---- What shaderc knows: it may be older than the glslc that made the kernels that are built in ---- */

/* Not from the cache on disk: another shaderc may have filled that. */
static hk_status ask(const char *extension, bool *knows) {
    char source[256];
    uint32_t *words;
    size_t bytes;
    snprintf(source, sizeof source, "#version 450\n#extension %s : require\nvoid main() {}\n", extension);
    const hk_status status = vk_shaderc_compile(source, extension, &words, &bytes);
    *knows = !status;
    if (!status) free(words);
    else hk_fail(HK_OK, "%s", "");
    return status == HK_ERROR_OUT_OF_MEMORY ? status : HK_OK;
}

/* Once a process; where memory ran out, the next one asks again. */
bool vk_writes_matrices(enum hk_dtype dtype) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static bool asked, f16, bf16;
    pthread_mutex_lock(&mutex);
    if (!asked) asked = !ask("GL_KHR_cooperative_matrix", &f16) && !ask("GL_EXT_bfloat16", &bf16);
    const bool writes = f16 && (dtype == HK_F16 || (dtype == HK_BF16 && bf16));
    pthread_mutex_unlock(&mutex);
    return writes;
}
