// Pieces of HTML. Every text that is passed in is escaped; what is called html is not.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "report/table.h"

namespace satin::report {

/// Text with & < > " ' as entities.
std::string escape_html(const std::string& text);

/// The table in a box that scrolls on its own, so that the page never does sideways.
std::string table_html(const std::vector<std::string>& columns, const std::vector<std::vector<std::string>>& rows);
/// ... with a second header line above the first: each group's name spans its number of columns. The first column stays
/// in sight when the rest is scrolled.
std::string grouped_table_html(const std::vector<std::pair<std::string, size_t>>& groups,
                               const std::vector<std::string>& columns,
                               const std::vector<std::vector<std::string>>& rows);

std::string heading(const std::string& text);
std::string subheading(const std::string& text);
std::string paragraph(const std::string& text);
/// Opens and closes on a click.
std::string details(const std::string& summary, const std::string& html, bool open = false);

}  // namespace satin::report
