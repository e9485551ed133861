// Scalars for TensorBoard, without its libraries.
#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace satin::report {

/// Appends scalar summaries to <directory>/events.out.tfevents.0.satin.
/// Format: TFRecord (u64 length, masked CRC-32C of it, data, masked CRC-32C of the data) of tensorflow.Event messages
/// (wall_time = 1, step = 2, file_version = 3, summary = 5), in protobuf's wire format.
/// Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/util/event.proto.
class TensorBoardWriter {
 public:
  /// Continues an existing file up to and including `last_step`, what follows (or is damaged) is cut off; -1 starts
  /// anew. Errors: UserError when the file cannot be written.
  explicit TensorBoardWriter(const std::filesystem::path& directory, int64_t last_step = -1);

  void add_scalar(const std::string& tag, double value, int64_t step);
  /// Hands everything to the system. Errors: UserError when the file cannot be written.
  void flush();

 private:
  void write_record(const std::string& data);

  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace satin::report
