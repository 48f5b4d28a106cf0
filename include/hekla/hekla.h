/* Hekla: trains and runs neural networks on any Vulkan GPU and on the CPU. This header is all of it. */
#ifndef HEKLA_HEKLA_H
#define HEKLA_HEKLA_H

#include <hekla/base.h>
#include <hekla/device.h>
#include <hekla/graph.h>
#include <hekla/io.h>
#include <hekla/nn.h>
#include <hekla/tensor.h>

#endif
