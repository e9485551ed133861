// libFuzzer's entry point for token files. Its corpus is replayed by fuzz_replay_test.cpp.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Icsrc tests/data/fuzz_token_file.cpp
//           csrc/data/token_file.cpp csrc/core/error.cpp csrc/core/file.cpp
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "core/error.h"
#include "data/token_file.h"

namespace satin::data {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const std::vector<std::byte>& bytes) {
  const int fd = ::memfd_create("fuzz", 0);
  require(fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  try {
    const TokenFile file(path);
    // What an unverified file must allow: all reads stay inside, wrong tokens are reported.
    require(file.num_tokens() > 0 && file.document_start(0) == 0);
    for (uint64_t d = 0; d < file.num_documents(); ++d) file.document_start(d);
    for (const uint64_t i : {uint64_t{0}, file.num_tokens() / 2, file.num_tokens() - 1}) {
      file.scored(i);
      require(file.first_document_from(i) <= file.num_documents());
    }
    std::vector<int64_t> tokens(file.num_tokens());
    file.read_tokens(0, tokens);
    for (const int64_t id : tokens) require(id >= 0 && static_cast<uint64_t>(id) < file.header().vocab_size);
    file.verify();
    for (uint64_t i = 0; i < file.num_tokens(); ++i) {  // the search agrees with a scan
      const uint64_t d = file.first_document_from(i);
      require(d == file.num_documents() || file.document_start(d) >= i);
      require(d == 0 || file.document_start(d - 1) < i);
    }
  } catch (const UserError&) {
  }
  ::close(fd);
}

/// Repairs checksums, which a fuzzer cannot guess, so that what lies behind them is reached.
void repair(std::vector<std::byte>& bytes) {
  TokenFileHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  const uint64_t room = bytes.size() - sizeof header;
  const uint64_t token_bytes = header.num_tokens <= room ? header.num_tokens * (header.token_bytes & 7) : room + 1;
  const uint64_t document_bytes = header.num_documents <= room ? header.num_documents * 8 : room + 1;
  const uint64_t documents_at = (token_bytes + 7) / 8 * 8;
  if (documents_at <= room && document_bytes <= room - documents_at) {
    const std::span<const std::byte> sections = std::span(bytes).subspan(sizeof header);
    header.tokens_crc = crc32c(sections.first(token_bytes));
    header.documents_crc = crc32c(sections.subspan(documents_at, document_bytes));
    header.mask_crc = crc32c(sections.subspan(documents_at + document_bytes));
  }
  header.header_crc = 0;
  header.header_crc = crc32c(std::as_bytes(std::span(&header, 1)));
  std::memcpy(bytes.data(), &header, sizeof header);
}

}  // namespace
}  // namespace satin::data

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  std::vector<std::byte> bytes(begin, begin + size);
  satin::data::check(bytes);
  if (size >= sizeof(satin::data::TokenFileHeader)) {
    satin::data::repair(bytes);
    satin::data::check(bytes);
  }
  return 0;
}
