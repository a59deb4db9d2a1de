// The zip archive that torch.jit.save writes, read into memory once and checked as a whole.
#pragma once

#include <caffe2/serialize/inline_container.h>

#include <memory>
#include <optional>
#include <string>

namespace scschnet {

/// Every record has been compared with its checksum, which torch itself does not do: a flipped bit
/// in a weight would load without a word.
class Archive {
 public:
  /// Throws std::runtime_error with one sentence if the file is missing, no archive, cut short or
  /// changed.
  explicit Archive(const std::string& path);

  /// Content of the record `name`, for example "extra/scschnet.json"; nothing if there is none.
  std::optional<std::string> record(const std::string& name);

  /// For torch::jit::load. Lives as long as it is held.
  std::shared_ptr<caffe2::serialize::ReadAdapterInterface> adapter() const { return bytes_; }

 private:
  std::shared_ptr<caffe2::serialize::ReadAdapterInterface> bytes_;
  std::unique_ptr<caffe2::serialize::PyTorchStreamReader> reader_;
};

}  // namespace scschnet
