#include "report/markup.h"

#include "core/error.h"

namespace satin::report {
namespace {

std::string cells(const char* tag, const std::vector<std::string>& texts) {
  std::string html;
  for (const std::string& text : texts) html += cat("<", tag, ">", escape_html(text), "</", tag, ">");
  return html;
}

std::string table_element(const std::string& attributes, const std::string& header,
                          const std::vector<std::vector<std::string>>& rows) {
  std::string html = cat("<div class=\"scroll\"><table", attributes, "><thead>", header, "</thead><tbody>\n");
  for (const auto& row : rows) html += "<tr>" + cells("td", row) + "</tr>\n";
  return html + "</tbody></table></div>\n";
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string html;
  html.reserve(text.size());
  for (char c : text) {
    switch (c) {
      case '&':
        html += "&amp;";
        break;
      case '<':
        html += "&lt;";
        break;
      case '>':
        html += "&gt;";
        break;
      case '"':
        html += "&quot;";
        break;
      case '\'':
        html += "&#39;";
        break;
      default:
        html += c;
    }
  }
  return html;
}

std::string table_html(const std::vector<std::string>& columns, const std::vector<std::vector<std::string>>& rows) {
  return table_element("", "<tr>" + cells("th", columns) + "</tr>", rows);
}

std::string grouped_table_html(const std::vector<std::pair<std::string, size_t>>& groups,
                               const std::vector<std::string>& columns,
                               const std::vector<std::vector<std::string>>& rows) {
  std::string header = "<tr>";
  for (const auto& [name, span] : groups) header += cat("<th colspan=\"", span, "\">", escape_html(name), "</th>");
  header += "</tr><tr>" + cells("th", columns) + "</tr>";
  return table_element(" class=\"grouped\"", header, rows);
}

std::string heading(const std::string& text) { return "<h2>" + escape_html(text) + "</h2>\n"; }
std::string subheading(const std::string& text) { return "<h3>" + escape_html(text) + "</h3>\n"; }
std::string paragraph(const std::string& text) { return "<p>" + escape_html(text) + "</p>\n"; }

std::string details(const std::string& summary, const std::string& html, bool open) {
  return cat("<details", open ? " open" : "", "><summary>", escape_html(summary), "</summary>\n", html, "</details>\n");
}

}  // namespace satin::report
