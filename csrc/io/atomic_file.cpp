#include "io/atomic_file.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include "core/file.h"

namespace satin::io {
namespace fs = std::filesystem;

AtomicFile::AtomicFile(fs::path path)
    : path_(std::move(path)),
      temporary_(path_.string() + ".partial"),
      file_(temporary_, OutputFile::Mode::kCreate, path_) {}

AtomicFile::~AtomicFile() {
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::commit() {
  file_.sync();
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) file_.fail("replace");
  committed_ = true;
  file_.close();
  sync_path(path_.has_parent_path() ? path_.parent_path() : ".");
}

}  // namespace satin::io
