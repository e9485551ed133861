// "dotted.key=value" from the command line, applied to the tree before it is bound to the structs, so that an override
// acts exactly as if it stood in the file.
#pragma once
#include <string>

#include "config/document.h"

namespace satin::config {

/// Writes shorthands out: a list of one without its dash, and list items given as a plain value.
void expand_shorthands(Node& root);

/// Sets `dotted_key` in the tree, creating sections and lists on the way. On a bad key (an index past the end, a key
/// inside a plain value) adds to `problems`.
void set_value(Node& root, const std::string& dotted_key, Node value, Problems& problems);

}  // namespace satin::config
