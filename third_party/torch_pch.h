// Precompiled header of every file that uses torch. A build aid only: files include what they use.
// Only what most of them need: GCC instantiates the templates that a precompiled header asks for again in each file
// (torch/library.h and torch/csrc/autograd/custom_function.h would cost every file a second and a half).
#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>
