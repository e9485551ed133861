// Charts as data: what is drawn where. assets/report.js draws them with dygraphs.
#pragma once
#include <string>
#include <vector>

namespace satin::report {

/// One line, or the bars of one colour. Numbers that are not finite are gaps.
struct ChartCurve {
  std::string name;      ///< in the legend
  int colour = 0;        ///< number of the run; kTeacherColour for what belongs to none
  bool teacher = false;  ///< dashed; bars in outline
  std::vector<double> x = {}, y = {};
  std::vector<double> low = {}, high = {};  ///< interval around y, drawn as a band; empty: none
};
inline constexpr int kTeacherColour = -1;

struct Chart {
  std::string title;                ///< says what y is, with its unit
  std::string x_label;              ///< what x is
  std::string style = "line";       ///< line; points (joined markers); steps (y holds from x to the next); bars
  std::string x_format = "number";  ///< number; percent (x is a share); log10 (labels show 10^x)
  std::vector<std::string> categories = {};  ///< bars: names of x = 0, 1, ...
  std::string role =
      {};  ///< training: takes part in "Running mean"; loss: also, and evaluation: only, in "Logarithmic"
  std::vector<ChartCurve> curves = {};
};

/// A student's curve and its teacher's, of the run number `run`.
struct CurvePair {
  int run;
  std::string name;             ///< of the run
  ChartCurve student, teacher;  ///< x, y and interval; a teacher without points is absent
};
/// Students in their runs' colours, teachers dashed: one for all when they are equal, else one a run in its colour.
std::vector<ChartCurve> beside(const std::vector<CurvePair>& pairs);

/// The charts of a page in the order in which they were placed.
class Charts {
 public:
  /// The element that these charts will fill. Charts without curves are left out; "" when none is left, or when the
  /// build has no plotting library.
  std::string place(std::vector<Chart> charts);
  bool empty() const { return grids_.empty(); }
  /// {"runs": [name], "grids": [{"id", "charts": [...]}]}, fit for the inside of a script element.
  std::string json(const std::vector<std::string>& run_names) const;

 private:
  std::vector<std::vector<Chart>> grids_;
};

}  // namespace satin::report
