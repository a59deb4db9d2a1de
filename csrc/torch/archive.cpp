// Reads the directory of the archive for its checksums; the records themselves through torch.
#include "archive.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

namespace scschnet {
namespace {

using caffe2::serialize::PyTorchStreamReader;

class Bytes final : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit Bytes(std::string content) : content_(std::move(content)) {}
  std::string_view view() const { return content_; }
  std::size_t size() const override { return content_.size(); }
  std::size_t read(std::uint64_t pos, void* buf, std::size_t n, const char*) const override {
    return pos < content_.size() ? content_.copy(static_cast<char*>(buf), n, pos) : 0;
  }

 private:
  std::string content_;
};

std::string file_content(const std::string& path) {
  if (std::filesystem::is_directory(path)) {
    throw std::runtime_error(path + " is a folder, not an exported model");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("there is no readable file " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// ---- checksums. Zip files are little-endian: APPNOTE.TXT, sections 4.3.12 to 4.3.16.

constexpr std::array<std::uint32_t, 256> crc_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320U : 0U);
    table[byte] = crc;
  }
  return table;
}();

std::uint32_t crc32(std::string_view bytes) {
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char c : bytes)
    crc = (crc >> 8) ^ crc_table[(crc ^ static_cast<std::uint8_t>(c)) & 0xFF];
  return ~crc;
}

template <class Integer>
std::uint64_t integer_at(std::string_view file, std::uint64_t offset) {
  if (file.size() < sizeof(Integer) || offset > file.size() - sizeof(Integer)) {
    throw std::runtime_error("its directory is cut short");
  }
  std::uint64_t result = 0;
  for (std::size_t k = 0; k < sizeof(Integer); ++k) {
    result |= static_cast<std::uint64_t>(static_cast<std::uint8_t>(file[offset + k])) << (8 * k);
  }
  return result;
}

/// Offset of the directory and the number of its entries.
std::pair<std::uint64_t, std::uint64_t> directory_of(std::string_view file) {
  const std::size_t end = file.rfind("PK\5\6");
  if (end == std::string_view::npos) throw std::runtime_error("it is no zip archive, or cut short");
  if (end >= 20 && file.substr(end - 20, 4) == "PK\6\7") {  // large format, as torch writes
    const std::uint64_t large = integer_at<std::uint64_t>(file, end - 12);
    return {integer_at<std::uint64_t>(file, large + 48),
            integer_at<std::uint64_t>(file, large + 32)};
  }
  return {integer_at<std::uint32_t>(file, end + 16), integer_at<std::uint16_t>(file, end + 10)};
}

struct Entry {
  std::string name;  // without the folder that holds everything
  std::uint32_t checksum;
};

std::vector<Entry> entries_of(std::string_view file) {
  std::vector<Entry> entries;
  auto [at, count] = directory_of(file);
  for (; count > 0; --count) {
    if (integer_at<std::uint32_t>(file, at) != 0x02014B50) {
      throw std::runtime_error("its directory is damaged");
    }
    const auto length = [&](int field) { return integer_at<std::uint16_t>(file, at + field); };
    const std::string_view name = file.substr(std::min(at + 46, file.size()), length(28));
    entries.push_back({std::string(name.substr(name.find('/') + 1)),
                       static_cast<std::uint32_t>(integer_at<std::uint32_t>(file, at + 16))});
    at += 46 + length(28) + length(30) + length(32);
  }
  return entries;
}

/// A name out of a file that may be damaged, fit for a sentence.
std::string printable(std::string name) {
  for (char& c : name) {
    if (c < ' ' || c > '~') c = '?';
  }
  return name;
}

std::string content_of(PyTorchStreamReader& reader, const std::string& name) {
  const auto [data, size] = reader.getRecord(name);
  return {static_cast<const char*>(data.get()), size};
}

void check(PyTorchStreamReader& reader, std::string_view file) {
  constexpr std::uint64_t best_compression = 1032;  // that deflate can reach
  for (const Entry& entry : entries_of(file)) {
    if (reader.getRecordSize(entry.name) / best_compression > file.size() ||
        crc32(content_of(reader, entry.name)) != entry.checksum) {
      throw std::runtime_error("the checksum of its record " + printable(entry.name) + " is wrong");
    }
  }
}

}  // namespace

Archive::Archive(const std::string& path) {
  auto bytes = std::make_shared<Bytes>(file_content(path));
  const std::string damaged = path + " is not an exported model, or is damaged: ";
  try {
    directory_of(bytes->view());
    reader_ = std::make_unique<PyTorchStreamReader>(bytes);
    check(*reader_, bytes->view());
  } catch (const c10::Error&) {
    throw std::runtime_error(damaged + "it is no archive of torch, or changed");
  } catch (const std::exception& error) {
    throw std::runtime_error(damaged + error.what());
  }
  bytes_ = std::move(bytes);
}

std::optional<std::string> Archive::record(const std::string& name) {
  if (!reader_->hasRecord(name)) return std::nullopt;
  return content_of(*reader_, name);
}

}  // namespace scschnet
