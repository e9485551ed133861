// Rows and columns of text, as the page shows them.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace satin::report {

struct Table {
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};

/// A file with rows of objects: a JSON array of objects, or an object that has one ("rows", "tensors", ...); a file
/// without any gives an empty table. Errors: UserError when it is not JSON.
Table read_table(const std::filesystem::path& path, const std::string& title);

/// A number for a table: 5 significant digits, or all of a whole part.
std::string number_text(double value);

}  // namespace satin::report
