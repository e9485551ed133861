#include "report/html.h"

#include <map>

#include "core/error.h"
#include "core/file.h"
#include "report/assets.h"
#include "report/markup.h"
#include "report/sections.h"

namespace satin::report {
namespace fs = std::filesystem;
namespace {

/// A name a run; runs of the same name get their number.
void make_names_unique(Runs& runs) {
  std::map<std::string, int> count, seen;
  for (const RunData& run : runs) ++count[run.name];
  for (RunData& run : runs)
    if (count[run.name] > 1) run.name += cat(" (", ++seen[run.name], ")");
}

std::string title_of(const Runs& runs) {
  std::string title = "Satin: " + runs[0].name;
  for (size_t i = 1; i < runs.size(); ++i) title += (i + 1 < runs.size() ? ", " : " and ") + runs[i].name;
  return title;
}

}  // namespace

void write_report(const std::vector<fs::path>& run_dirs, const fs::path& output) {
  if (run_dirs.empty()) throw UserError("report: expected at least one run directory");
  Runs runs;
  for (const fs::path& directory : run_dirs) runs.push_back(read_run(directory));
  make_names_unique(runs);

  const std::string title = escape_html(title_of(runs));
  std::string page =
      cat("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
          "script-src 'unsafe-inline'\">\n<title>",
          title, "</title>\n<style>", assets::kDygraphCss, assets::kReportCss, "</style>\n</head>\n<body>\n<h1>", title,
          "</h1>\n");
  if (assets::kDygraphJs.empty())
    page += paragraph("This build of Satin has no plotting library (libjs-dygraphs), so the curves are left out.");
  else
    page += "<noscript><p>The curves need JavaScript; the tables do not.</p></noscript>\n";
  Charts charts;
  page += results_section(runs);
  page += other_tasks_section(runs);
  page += allocation_section(runs, charts);
  page += smoothness_section(runs, charts);
  page += robustness_section(runs, charts);
  page += training_section(runs, charts);
  page += quantizer_section(runs, charts);
  page += configuration_section(runs);
  page += details_section(runs);
  if (!charts.empty())
    page += cat("<script type=\"application/json\" id=\"data\">", charts.json(names_of(runs)), "</script>\n<script>",
                assets::kDygraphJs, "</script>\n<script>", assets::kReportJs, "</script>\n");
  page += "</body>\n</html>\n";
  write_file_atomically(output, page);
}

}  // namespace satin::report
