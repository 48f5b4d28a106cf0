/* Every Vulkan call of a whole job fails once, with each result that it may have, and every allocation: on the first Vulkan
   device. Skipped without one. */
#include "base/base.h"
#include "faults/every.h"
#include "support.h"
#include <stdlib.h>

/* Without these a job is done right all the same. */
static const char *const survivors[] = {
    "json_parse",                            /* tries again: cJSON does not say what was wrong */
    "step_of_path",                          /* in loading: the file under its own name is then taken, and checked */
    "add_event", "vk_profile_resolve",       /* a trace says how many events it lacks */
    "vk_cache_open", "vk_cache_save",        /* pipelines are made anew, or not kept on disk */
    "hk_cache_folder", "load", "keep_on_disk",
    "vk_idle",                               /* a write goes by way of the staging ring */
    "vk_settle", "close_device",             /* whatever fails, the device is waited for */
    "vk_buffer_destroy",                     /* transfers that could not be submitted had no other use */
    "has_instance_extension",                /* portability drivers are not asked for */
    NULL,
};

/* Fewer threads make the pipelines. */
static const char *const fewer_threads[] = {"vk_pipelines_make", NULL};

#ifdef HK_WITH_VULKAN
/* The library must say so where there is no loader, and find it the next time. First of all: it is loaded once. */
static bool loader_fails_once(const struct job *job) {
    fault_arm(FAULT_VULKAN, 1, 0);
    struct hk_device *device = hk_device_open(&(struct hk_device_params){.name = job->device});
    const struct fault_report *r = fault_disarm();
    const bool right = r->fired && !device && hk_error_status() == HK_ERROR_NO_DEVICE;
    if (!right) fprintf(stderr, "FAILED: without a loader: %s\n", device ? "there is a device" : hk_error_message());
    hk_device_destroy(&device);
    return right;
}
#endif

int main(void) {
    int count = 0;
    faults_install();
    const char *folder = fault_folder_make();
    const struct job plain = {.device = "vulkan:0", .folder = folder, .threads = 1};
    const struct job rich = {.device = "vulkan:0", .folder = folder, .threads = 1, .rich = true};
    const struct job trace = {.device = "vulkan:0", .folder = folder, .threads = 1, .trace = true};
    const struct every courses[] = {
        {"Vulkan calls", trace, FAULT_VULKAN, 1, survivors, 4},
        {"Vulkan calls of a larger graph", rich, FAULT_VULKAN, 13, survivors, 4},
        {"memory", plain, FAULT_MEMORY, 17, survivors, 8},
        {"arenas and lists", plain, FAULT_ARENA, 23, survivors, 8},
        {"threads", trace, FAULT_THREAD, 1, fewer_threads, 1},
    };
    bool right = true;
#ifdef HK_WITH_VULKAN
    right = loader_fails_once(&plain);
#endif
    if (hk_device_list(NULL, 0, &count) || count < 2) {
        printf("no Vulkan device on this machine\n");
        fault_folder_remove();
        return right ? TEST_SKIPPED : 1;
    }
    fault_vulkan_keep(true);
    for (size_t i = 0; i < HK_LENGTH(courses); i++) right = fault_every(&courses[i]) && right;
    fault_vulkan_keep(false);
    fault_folder_remove();
    return right ? 0 : 1;
}
