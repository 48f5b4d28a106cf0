/* The devices that tests run on: every one there is. Those that a driver offers but cannot open are named and skipped. */
#ifndef HK_TESTS_EACH_DEVICE_H
#define HK_TESTS_EACH_DEVICE_H

#include <hekla/hekla.h>
#include <stdio.h>

enum { MAX_DEVICES = 8 };

/* Calls test(device) on each. */
static inline void each_device(void (*test)(struct hk_device *device)) {
    struct hk_device_info infos[MAX_DEVICES];
    int count = 0;
    hk_device_list(infos, MAX_DEVICES, &count);
    for (int i = 0; i < count && i < MAX_DEVICES; i++) {
        char name[32] = "cpu";
        if (infos[i].kind == HK_DEVICE_VULKAN) snprintf(name, sizeof name, "vulkan:%d", infos[i].index);
        struct hk_device *device = hk_device_open(&(struct hk_device_params){.name = name});
        if (!device) {
            printf("skipped on %s: %s\n", name, hk_error_message());
            continue;
        }
        printf("on %s (%s)\n", name, infos[i].name);
        test(device);
        hk_device_destroy(&device);
    }
}

#endif
